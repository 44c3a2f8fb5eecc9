# SPDX-License-Identifier: Apache-2.0
"""The recipes of known runs against their formulas in float64, with their schedules."""

import ast
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from formulas.kronecker import shampoo
from formulas.muon import EXPRESS, FIVE, orthogonal
from gradtx import Role, recipes

pytestmark = pytest.mark.usefixtures("x64")

RECIPES = {n: f for n, f in vars(recipes).items() if inspect.isfunction(f)}
PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()

SHAPES = {"embed": (7, 4), "scale": (2, 4), "head": (4, 7), "up": (2, 4, 6), "down": (2, 6, 4), "square": (2, 4, 4)}
RULES = (
    ("embed", Role("embedding")),
    ("head", Role("head")),
    ("scale", Role("norm", stack=0)),
    ("**", Role("hidden", stack=0, in_axes=1, out_axes=2)),
)
STACKS = {name: [(i,) for i in range(2)] for name in ("up", "down", "square")}
"""Where the matrices (inputs, outputs) of each hidden parameter are."""


def arrays(shapes, seed):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=s) for n, s in shapes.items()}


def compare(tx, step, shapes, steps=6, starts=(0,), clip=None, rtol=1e-9, **extra):
    """The recipe and `step(p, g, s, k, name) -> p`, leaf by leaf, on the same gradients, begun at some steps.

    k is the number of the step from 0; s["t"] how many the averages have seen, this one included.
    """
    update = jax.jit(tx.update)
    for start in starts:
        want, memory = arrays(shapes, 0), {n: {} for n in shapes}
        params = jax.tree.map(jnp.asarray, want)
        state = tx.init(params)
        state = gt.restart(state, start) if start else state
        for t in range(1, steps + 1):
            g = arrays(shapes, t)
            updates, state = update(jax.tree.map(jnp.asarray, g), state, params, **extra)
            params = gt.apply_updates(params, updates)
            norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
            scaled = {n: x * min(1, clip / norm) if clip else x for n, x in g.items()}
            for n in want:
                memory[n]["t"] = t
                want[n] = step(want[n], scaled[n], memory[n], start + t - 1, n)
            for n in want:
                np.testing.assert_allclose(params[n], want[n], rtol=rtol, atol=1e-11, err_msg=f"{n} at {start} + {t}")


def of_matrices(x, places, rule):
    """The rule on each matrix of an array, called with its number."""
    out = np.empty_like(x)
    for k, place in enumerate(places):
        out[place] = rule(k, x[place])
    return out


def adam(g, s, eps=1e-8, nesterov=False, b1=0.9, b2=0.999):
    t = s["t"]
    s["m"], s["v"] = b1 * s.get("m", 0) + (1 - b1) * g, b2 * s.get("v", 0) + (1 - b2) * g * g
    m = s["m"] / (1 - b1**t)
    if nesterov:
        m = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return m / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def jordan(g, s, beta=0.95):
    s["m"] = beta * s.get("m", 0) + (1 - beta) * g
    return beta * s["m"] + (1 - beta) * g


def normuon(x, s, k):
    i, o = x.shape
    y = orthogonal(x, EXPRESS, eps=1e-6, safety=1.02)
    v = s["nu", k] = 0.95 * s.get(("nu", k), 0) + 0.05 * np.mean(y**2, 0 if o >= i else 1, keepdims=True)
    z = y / (np.sqrt(v) + 1e-10)
    return z * np.linalg.norm(y) / (np.linalg.norm(z) + 1e-10)


def cautious(p, g, s, name, beta, rate, decay):
    y = of_matrices(jordan(g, s, beta), STACKS[name], lambda k, x: normuon(x, s, k))
    i, o = p.shape[1:]
    return p - rate * np.sqrt(max(1, o / i)) * (y + decay * p * (y * p >= 0))


def cosine(x):
    return (1 + np.cos(np.pi * x)) / 2


@pytest.mark.slow
def test_nanogpt_speedrun():
    def step(p, g, s, k, name):
        left = min(1, (400 - k) / 220)
        w = left + 0.1 * (1 - left)
        if name not in STACKS:
            return p - 0.03 * w * adam(g, s, b1=0.65, b2=0.95)
        beta = 0.85 + 0.1 * min(1, k / 300) * min(1, (400 - k) / 50)
        return cautious(p, g, s, name, beta, 0.02 * w, 0.02 * w * 0.3)

    tx = recipes.nanogpt_speedrun(400, 0.02, 0.03, 0.3, rules=RULES)
    compare(tx, step, SHAPES, steps=3, starts=(0, 250, 397))


@pytest.mark.slow
def test_nanochat():
    rates = {"embed": 0.3 * (12 / 768) ** -0.5, "head": 0.004 * (12 / 768) ** -0.5, "scale": 0.005}

    def step(p, g, s, k, name):
        w = min(1, (400 - k) / 160)
        if name not in STACKS:
            return p - rates[name] * w * adam(g, s, b1=0.8, b2=0.95, eps=1e-10)
        return cautious(p, g, s, name, 0.85 + 0.1 * min(1, k / 300), 0.02 * w, 0.2 * (1 - k / 400))

    compare(recipes.nanochat(400, 12, rules=RULES), step, SHAPES, steps=3, starts=(0, 239, 397))


ATTENTION = {"query": (5, 3, 2), "key": (5, 3, 2), "value": (5, 3, 2), "out": (3, 2, 5), "up": (5, 8), "scale": (5,)}
OF_ATTENTION = (
    (("query", "key", "value"), Role("hidden", in_axes=0, out_axes=(1, 2), heads=1)),
    ("out", Role("hidden", in_axes=(0, 1), out_axes=2, heads=0)),
    ("up", Role("hidden", in_axes=0, out_axes=1)),
    ("scale", Role("norm")),
)


def scaled(x):
    return 0.2 * np.sqrt(max(x.shape)) * orthogonal(x, FIVE)


def whole(x, name):
    """The matrix (inputs, outputs) that a projection is."""
    return x.reshape(-1, x.shape[-1]) if name == "out" else x.reshape(len(x), -1)


@pytest.mark.slow
def test_kimi_k2():
    logits = np.array([5.0, 150.0, 400.0])
    decay_steps = round(20 * 5.5 / 15.5)

    def step(p, g, s, k, name):
        fall = max(0, k - (20 - decay_steps)) / decay_steps
        rate = 0.01 * min(1, k / 3) * (0.1 + 0.9 * cosine(fall))
        if name == "scale":
            return p - rate * (adam(g, s, b2=0.95) + 0.2 * p)
        s["M"] = 0.95 * s.get("M", 0) + g
        # eps meets the average, which is 1 - 0.95 of the sum, corrected for its start.
        average = s["M"] * 0.05 / (1 - 0.95 ** s["t"])
        new = (1 - rate * 0.2) * p - rate * scaled(whole(average, name)).reshape(p.shape)
        power = {"query": 0.5, "key": 0.3}.get(name)
        return new if power is None else new * np.minimum(1, 100 / logits)[:, None] ** power

    exponents = [("query", 0.5), ("key", 0.3)]
    tx = recipes.kimi_k2(20, exponents, 0.01, 0.2, warmup_steps=3, rules=OF_ATTENTION)
    compare(tx, step, ATTENTION, steps=20, max_logits=jnp.asarray(logits))


@pytest.mark.slow
def test_muon_by_head():
    heads = {n: [(slice(None), h) for h in range(3)] for n in ("query", "key", "value")}

    def step(p, g, s, k, name):
        if name == "scale":
            return p - 0.01 * adam(g, s, nesterov=True)
        x = jordan(g, s)
        if name in heads:
            u = of_matrices(x, heads[name], lambda _, x: scaled(x))
        else:
            u = scaled(whole(x, name)).reshape(x.shape)
        return p - 0.01 * (u + 0.1 * p)

    compare(recipes.muon_by_head(0.01, rules=OF_ATTENTION), step, ATTENTION)


@pytest.mark.slow
def test_muon_hyperball():
    angle, rate, decay = 0.05, 0.01, 0.1

    def step(p, g, s, k, name):
        if name not in STACKS:
            return p - rate * (adam(g, s) + decay * p)
        radii = s.setdefault("radii", np.linalg.norm(p, axis=(1, 2)))
        u = of_matrices(jordan(g, s), STACKS[name], lambda k, x: orthogonal(x, FIVE))

        def turned(k, w):
            v = w - angle * np.linalg.norm(w) * u[k] / np.linalg.norm(u[k])
            return radii[k] * v / np.linalg.norm(v)

        return of_matrices(p, STACKS[name], turned)

    compare(recipes.muon_hyperball(angle, rate, decay, rules=RULES), step, SHAPES)


def test_llama_wsd():
    def step(p, g, s, k, name):
        rate = 0.01 * min(1, k / 4) * min(1, (48 - k) / 4)
        return p - rate * (adam(g, s, b2=0.95) + 0.2 * p)

    compare(recipes.llama_wsd(48, 0.01, 0.2, warmup_steps=4), step, {"w": (3, 4), "b": (4,)}, steps=48, clip=1.0)


def test_algoperf_nadamw():
    b1, b2, decay = 1 - 0.06733926164, 0.9955159689799007, 0.08121616522670176

    def step(p, g, s, k, name):
        rate = 0.0017486387539278373 * (k / 2 if k < 2 else cosine((k - 2) / 98))
        return p - rate * (adam(g, s, nesterov=True, b1=b1, b2=b2) + decay * p)

    compare(recipes.algoperf_nadamw(100), step, {"w": (3, 4), "b": (4,)}, steps=100)


@pytest.mark.slow
def test_algoperf_shampoo():
    shapes = {"kernel": (2, 2, 3, 2), "matrix": (5, 5), "bias": (4,)}
    merged = {(2, 2, 3, 2): (4, 6)}

    def step(p, g, s, k, name):
        rate = 0.02 * (k / 2 if k < 2 else cosine((k - 2) / 6))
        # The first root is of factors of full rank: what a null space is multiplied by depends on rounding.
        rule = shampoo(rate, b1=0.8, b2=0.99, decay=0.1, f=4, graft="adam", blocks=6, shapes=merged)
        return rule(p, g, s, s["t"])

    tx = recipes.algoperf_shampoo(8, 0.02, 0.1, 0.8, 0.99, warmup_steps=2, precondition_frequency=4, block_size=6)
    compare(tx, step, shapes, steps=8)


def test_vit_adafactor():
    shapes = {"kernel": (32, 33), "head": (4, 5), "bias": (4,)}
    roles = (("kernel", Role("hidden", in_axes=0, out_axes=1)), ("head", Role("head")), ("bias", Role("bias")))
    decays = {"kernel": 0.03, "head": 3.0, "bias": 0.0}

    def step(p, g, s, k, name):
        rate = 0.01 * min(1, k / 3) / np.sqrt(1 + max(0, k - 3) / 5) * min(1, (12 - k) / 4)
        d = min(0.999, 1 - s["t"] ** -0.8)
        squares = g**2 + 1e-30
        if name == "kernel":
            s["r"] = d * s.get("r", 0) + (1 - d) * squares.mean(1, keepdims=True)
            s["c"] = d * s.get("c", 0) + (1 - d) * squares.mean(0, keepdims=True)
            v = s["r"] * s["c"] / s["r"].mean()
        else:
            v = s["v"] = d * s.get("v", 0) + (1 - d) * squares
        m = 0.9 * s.get("m", 0) + 0.1 * g / np.sqrt(v)
        s["m"] = np.asarray(m, jnp.bfloat16).astype(np.float64)
        return p - rate * (m + decays[name] * p)

    tx = recipes.vit_adafactor(12, 0.01, warmup_steps=3, timescale=5, cooldown_steps=4, rules=roles)
    compare(tx, step, shapes, steps=12, clip=1.0)


def test_vit_finetuning():
    shapes = {"patches": (6, 4), "kernels": (3, 4, 4), "scales": (3, 4), "head": (4, 5)}
    roles = (
        ("patches", Role("embedding")),
        ("kernels", Role("hidden", stack=0, in_axes=1, out_axes=2)),
        ("scales", Role("norm", stack=0)),
        ("head", Role("head")),
    )
    layers = 0.75 ** np.array([3.0, 2.0, 1.0])
    factors = {"patches": 0.75**4, "kernels": layers[:, None, None], "scales": layers[:, None], "head": 1.0}

    def step(p, g, s, k, name):
        rate = factors[name] * 0.004 * (k / 2 if k < 2 else cosine((k - 2) / 38))
        return p - rate * (adam(g, s) + (0.05 * p if name in ("kernels", "head") else 0))

    compare(recipes.vit_finetuning(40, rules=roles), step, shapes, steps=40)


CONVOLUTION = {"kernel": (3, 3, 2, 4), "scale": (4,), "bias": (4,)}


def test_resnet_lars():
    def step(p, g, s, k, name):
        rate = 2.0 * (k / 3 if k < 3 else (1 - (k - 3) / 9) ** 2)
        if name == "kernel":
            of_p, of_g = np.linalg.norm(p), np.linalg.norm(g)
            g = 0.001 * of_p / (of_g + 1e-4 * of_p) * (g + 1e-4 * p)
        s["v"] = 0.9 * s.get("v", 0) + rate * g
        return p - s["v"]

    compare(recipes.resnet_lars(12, 2.0, warmup_steps=3), step, CONVOLUTION, steps=12)


def test_resnet_nesterov():
    def step(p, g, s, k, name):
        w = min(1, k / 2)
        rate = (0.1 + (0.8 - 0.1) * w) * 0.1 ** ((k >= 12) + (k >= 24) + (k >= 32))
        g = g + 1e-4 * p if name == "kernel" else g
        s["v"] = 0.9 * s.get("v", 0) + g
        return p - rate * (0.9 * s["v"] + g)

    compare(recipes.resnet_nesterov(36, 0.8), step, CONVOLUTION, steps=36)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short_has_a_source_and_is_on_the_page(name: str):
    (function,) = ast.parse(inspect.getsource(inspect.unwrap(RECIPES[name]))).body
    assert isinstance(function, ast.FunctionDef) and ast.get_docstring(function)
    assert sum(len(ast.unparse(line).splitlines()) for line in function.body[1:]) <= 20
    assert re.search(r"arXiv:\d{4}\.\d{5}", RECIPES[name].__doc__ or "")
    assert f"gradtx.recipes.{name}(" in PAGE or f"recipes.{name}(" in PAGE


def test_all_recipes_have_a_formula():
    assert {f"test_{name}" for name in RECIPES} <= set(globals())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: recipes.llama_wsd(2_222),
            "llama_wsd: total_steps must be more than the 2000 steps of warm-up and 222",
        ),
        (lambda: recipes.kimi_k2(700, [("q", 0.5)]), "kimi_k2: total_steps must be more than the 500 steps of warm-up"),
        (lambda: recipes.vit_adafactor(60_000), "vit_adafactor: total_steps .* 10000 steps of warm-up and 50000"),
        (lambda: recipes.vit_finetuning(9, warmup_steps=9), "vit_finetuning: .* 9 steps of warm-up, got 9: make the"),
        (lambda: recipes.resnet_lars(5, 1.0, warmup_steps=7), "resnet_lars: .* 7 steps of warm-up, got 5"),
        (lambda: recipes.algoperf_shampoo(5, 1.0, 0.1, warmup_steps=5), "algoperf_shampoo: .* 5 steps of warm-up"),
        (lambda: recipes.nanochat(0), "nanochat: total_steps must be"),
    ],
)
def test_runs_that_are_too_short(make, message):
    with pytest.raises(ValueError, match=message):
        make()
