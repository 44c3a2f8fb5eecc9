# SPDX-License-Identifier: Apache-2.0
"""The recipes of known runs, as they stand on the page of matrix optimizers, against their formulas in float64."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from formulas.kronecker import shampoo
from formulas.muon import EXPRESS, FIVE, orthogonal
from gradtx import Role

pytestmark = pytest.mark.usefixtures("x64")

PAGE = (Path(__file__).parents[2] / "docs" / "matrix_optimizers.md").read_text()
SECTION = PAGE.partition("## Recipes of known runs")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```python\n(def .*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
RECIPES: dict = {"gradtx": gt, "Role": Role}
for block in BLOCKS:
    exec(block, RECIPES)

SHAPES = {"embed": (7, 4), "scale": (2, 4), "up": (2, 4, 6), "down": (2, 6, 4), "square": (2, 4, 4)}
RULES = [
    ("embed", Role("embedding")),
    ("scale", Role("norm", stack=0)),
    ("**", Role("hidden", stack=0, in_axes=1, out_axes=2)),
]
STACKS = {name: [(i,) for i in range(2)] for name in ("up", "down", "square")}
"""Where the matrices (inputs, outputs) of each hidden parameter are."""


def arrays(shapes, seed):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=s) for n, s in shapes.items()}


def compare(tx, step, shapes, steps=6):
    """The recipe and `step(p, g, s, t, name) -> p`, leaf by leaf, on the same gradients."""
    want, memory = arrays(shapes, 0), {n: {} for n in shapes}
    params = jax.tree.map(jnp.asarray, want)
    state, update = tx.init(params), jax.jit(tx.update)
    for t in range(1, steps + 1):
        g = arrays(shapes, t)
        updates, state = update(jax.tree.map(jnp.asarray, g), state, params)
        params = gt.apply_updates(params, updates)
        want = {n: step(want[n], g[n], memory[n], t, n) for n in want}
    for n in want:
        np.testing.assert_allclose(params[n], want[n], rtol=1e-9, atol=1e-11, err_msg=n)


def of_matrices(x, places, rule):
    """The rule on each matrix of an array, called with its number."""
    out = np.empty_like(x)
    for k, place in enumerate(places):
        out[place] = rule(k, x[place])
    return out


def adam(g, s, t, eps=1e-8, nesterov=True, b1=0.9, b2=0.999):
    s["m"], s["v"] = b1 * s.get("m", 0) + (1 - b1) * g, b2 * s.get("v", 0) + (1 - b2) * g * g
    m = s["m"] / (1 - b1**t)
    if nesterov:
        m = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return m / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def jordan(g, s, beta=0.95):
    s["m"] = beta * s.get("m", 0) + (1 - beta) * g
    return beta * s["m"] + (1 - beta) * g


@pytest.mark.slow
def test_speedrun():
    rate, decay = 0.02, 0.3

    def normuon(x, s, k):
        i, o = x.shape
        y = orthogonal(x, EXPRESS, eps=1e-7, safety=1.02)
        v = s["nu", k] = 0.95 * s.get(("nu", k), 0) + 0.05 * np.mean(y**2, 0 if o >= i else 1, keepdims=True)
        z = y / (np.sqrt(v) + 1e-10)
        return np.sqrt(max(1, o / i)) * z * np.linalg.norm(y) / (np.linalg.norm(z) + 1e-10)

    def step(p, g, s, t, name):
        if name not in STACKS:
            return p - rate * adam(g, s, t, eps=1e-10)
        u = of_matrices(jordan(g, s), STACKS[name], lambda k, x: normuon(x, s, k))
        return p - rate * (u + decay * p * (u * p >= 0))

    compare(RECIPES["speedrun"](RULES, rate, decay), step, SHAPES)


def test_kimi_k2():
    rate, decay = 0.01, 0.1

    def step(p, g, s, t, name):
        if name not in STACKS:
            return p - rate * (adam(g, s, t, nesterov=False) + decay * p)
        s["M"] = 0.95 * s.get("M", 0) + g
        # eps meets the average, which is 1 - 0.95 of the sum, corrected for its start.
        average = s["M"] * 0.05 / (1 - 0.95**t)
        u = of_matrices(average, STACKS[name], lambda k, x: 0.2 * np.sqrt(max(x.shape)) * orthogonal(x, FIVE))
        return (1 - rate * decay) * p - rate * u

    compare(RECIPES["kimi_k2"](RULES, rate, decay), step, SHAPES)


def test_muon_by_head():
    shapes = {
        "attention": {n: (5, 3, 2) for n in ("query", "key", "value")} | {"out": (3, 2, 5)},
        "norm": {"scale": (5,)},
        "up": {"kernel": (5, 8), "bias": (8,)},
    }
    flat = {f"{module}/{n}": s for module, leaves in shapes.items() for n, s in leaves.items()}
    heads = {f"attention/{n}": [(slice(None), h) for h in range(3)] for n in ("query", "key", "value")}
    rate, decay = 0.01, 0.1

    def step(p, g, s, t, name):
        if name.endswith(("scale", "bias")):
            return p - rate * adam(g, s, t)

        def direction(k, x):
            return 0.2 * np.sqrt(max(x.shape)) * orthogonal(x, FIVE)

        x = jordan(g, s)
        if name in heads:
            u = of_matrices(x, heads[name], direction)
        else:
            u = direction(0, x.reshape(-1, x.shape[-1])).reshape(x.shape)
        return p - rate * (u + decay * p)

    compare(RECIPES["muon_by_head"](rate, decay), step, flat)


@pytest.mark.slow
def test_muon_hyperball():
    angle, rate, decay = 0.05, 0.01, 0.1

    def step(p, g, s, t, name):
        if name not in STACKS:
            return p - rate * (adam(g, s, t, nesterov=False) + decay * p)
        radii = s.setdefault("radii", np.linalg.norm(p, axis=(1, 2)))
        u = of_matrices(jordan(g, s), STACKS[name], lambda k, x: orthogonal(x, FIVE))

        def turned(k, w):
            v = w - angle * np.linalg.norm(w) * u[k] / np.linalg.norm(u[k])
            return radii[k] * v / np.linalg.norm(v)

        return of_matrices(p, STACKS[name], turned)

    compare(RECIPES["muon_hyperball"](RULES, angle, rate, decay), step, SHAPES)


@pytest.mark.slow
def test_algoperf_shampoo():
    shapes = {"kernel": (2, 2, 3, 2), "matrix": (5, 5), "bias": (4,)}
    merged = {(2, 2, 3, 2): (4, 6)}
    # The first root is of factors of full rank: what a null space is multiplied by depends on rounding.
    formula = shampoo(0.02, b2=0.999, decay=0.1, f=4, graft="adam", blocks=6, shapes=merged)
    tx = RECIPES["algoperf_shampoo"](0.02, 0.1, frequency=4, block_size=6)
    compare(tx, lambda p, g, s, t, name: formula(p, g, s, t), shapes)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("(")[0])
def test_recipes_are_short(block: str):
    assert len(block.splitlines()) <= 20


def test_all_recipes_are_tested():
    assert {f"test_{b.split('(')[0].removeprefix('def ')}" for b in BLOCKS} <= set(globals())
