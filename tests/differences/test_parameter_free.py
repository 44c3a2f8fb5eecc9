# SPDX-License-Identifier: Apache-2.0
"""Where optax 0.2.8 differs from the papers of the rules that find their learning rate, and where its states agree."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")

START = np.random.default_rng(3).normal(size=(4, 3))
TARGET = np.random.default_rng(4).normal(size=(4, 3))


def loss(p):
    return float(np.sum((p - TARGET) ** 2 * np.arange(1, 4) / 2)) + 0.5


def gradient(p):
    return (p - TARGET) * np.arange(1, 4)


def run(tx, steps=15, gradients=gradient):
    """The parameters after each step, and the last state."""
    params, found = jnp.asarray(START), []
    state = tx.init(params)
    for _ in range(steps):
        p = np.asarray(params)
        updates, state = tx.update(jnp.asarray(gradients(p)), state, params, value=jnp.asarray(loss(p)))
        params = optax.apply_updates(params, updates)
        found.append(np.asarray(params))
    return np.stack(found), state


def run_formula(step, steps=15):
    p, s, found = START, {}, []
    for t in range(1, steps + 1):
        p = step(p, gradient(p), s, t)
        found.append(p)
    return np.stack(found)


def assert_equal(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def differ(a, b):
    return bool(np.max(np.abs(a - b)) > 0.01)


def momo(rate, b, decay, proximal, b2=None):
    """Schaipp et al. 2023, algorithms 1 and 2 (with b2), lower bound 0; optax takes the decay before the step."""

    def step(p, g, s, t):
        observed = {"d": g, "f": loss(p), "gamma": np.sum(g * p)}
        for n, x in observed.items():
            s[n] = b * s.get(n, x if b2 is None else 0.0) + (1 - b) * x
        diagonal, rho, k = 1.0, 1.0, 1 + rate * decay
        if b2 is not None:
            s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
            diagonal, rho = 1e-8 + np.sqrt(s["v"] / (1 - b2**t)), 1 - b**t
        gap = k * (s["f"] - s["gamma"]) + np.sum(s["d"] * p)
        tau = min(rate / rho, max(gap, 0) / np.sum(s["d"] ** 2 / diagonal))
        move = tau * s["d"] / diagonal
        return (p - move) / k if proximal else p / k - move

    return step


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_momo_shrinks_the_whole_step(rate, x64):
    """Lemma 3.1, equation (16): p = (p - tau d) / (1 + rate decay). optax shrinks p alone, which moves too far."""
    ours, theirs = gt.momo(rate, weight_decay=0.3), optax.contrib.momo(rate, weight_decay=0.3)
    assert_equal(run(theirs)[0], run_formula(momo(rate, 0.9, 0.3, proximal=False)))
    assert_equal(run(ours)[0], run_formula(momo(rate, 0.9, 0.3, proximal=True)))
    assert differ(run(ours)[0], run(theirs)[0])


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_momo_adam_shrinks_the_whole_step(rate, x64):
    """The same with d / D for d."""
    ours, theirs = gt.momo_adam(rate, weight_decay=0.3), optax.contrib.momo_adam(rate, weight_decay=0.3)
    assert_equal(run(theirs)[0], run_formula(momo(rate, 0.9, 0.3, proximal=False, b2=0.999)))
    assert_equal(run(ours)[0], run_formula(momo(rate, 0.9, 0.3, proximal=True, b2=0.999)))
    assert differ(run(ours)[0], run(theirs)[0])


def test_momo_takes_the_minimum_of_its_model(x64):
    """What tells the two apart without a paper: the step minimizes max(f + <g, q - p>, 0) + decay and distance."""
    rate, decay, g = 0.7, 0.3, gradient(START)

    def objective(q):
        model = max(loss(START) + np.sum(g * (q - START)), 0.0)
        return model + decay / 2 * np.sum(q**2) + np.sum((q - START) ** 2) / (2 * rate)

    ours, theirs = (lib(rate, weight_decay=decay) for lib in (gt.momo, optax.contrib.momo))
    best = run(ours, 1)[0][0]
    nearby = (best + 1e-3 * x for x in np.random.default_rng(5).normal(size=(200, 4, 3)))
    assert all(objective(best) < objective(q) for q in nearby)
    assert objective(run(theirs, 1)[0][0]) > objective(best) + 0.01


def warmup(count):
    return jnp.minimum(count / 3.0, 1.0)


def dadapt(p, g, s, t, decay=0.0):
    """Algorithm 5 as the authors have it: no estimate as long as ‖s‖ is 0."""
    d, weight = s.get("d", 1e-6), s.get("d", 1e-6) * min((t - 1) / 3, 1.0) * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    c, m, v, total = math.sqrt(0.999), s.get("m", 0.0), s.get("v", 0 * g), s.get("s", 0 * g)
    inner = np.sum(g * total / (np.sqrt(v) + 1e-8))
    s["m"], s["v"] = 0.9 * m + 0.1 * weight * g, 0.999 * v + 0.001 * g**2
    s["s"], s["r"] = c * total + (1 - c) * weight * g, c * s.get("r", 0.0) + (1 - c) * weight * inner
    size = np.sum(np.abs(s["s"]))
    s["d"] = max(d, s["r"] / ((1 - c) * size)) if size > 0 else d
    return p - s["m"] / (np.sqrt(s["v"]) + 1e-8)


def prodigy(p, g, s, t):
    """Algorithm 4 in the same way."""
    first, d = s.setdefault("first", p), s.get("d", 1e-6)
    weight = d * min((t - 1) / 3, 1.0) * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    s["m"], s["v"] = 0.9 * s.get("m", 0.0) + 0.1 * d * g, 0.999 * s.get("v", 0.0) + 0.001 * d**2 * g**2
    s["r"] = math.sqrt(0.999) * s.get("r", 0.0) + d / 1e-6 * weight * np.sum(g * (first - p))
    s["s"] = math.sqrt(0.999) * s.get("s", 0.0) + d / 1e-6 * weight * g
    size = np.sum(np.abs(s["s"]))
    s["d"] = max(d, s["r"] / size) if size > 0 else d
    return p - weight * s["m"] / (np.sqrt(s["v"]) + s["d"] * 1e-8)


@pytest.mark.parametrize(("name", "formula"), [("dadapt_adamw", dadapt), ("prodigy", prodigy)])
def test_a_rate_of_zero_leaves_the_estimate(name, formula, x64):
    """A warmup from 0 makes 0 / 0 of the first estimate, where the authors' code takes none; with optax all is NaN."""
    ours, theirs = getattr(gt, name)(warmup), getattr(optax.contrib, name)(warmup)
    assert np.isnan(run(theirs)[0][1:]).all()
    assert_equal(run(ours)[0], run_formula(formula))


@pytest.mark.parametrize("name", ["dadapt_adamw", "prodigy"])
def test_a_gradient_of_zero_leaves_the_estimate(name, x64):
    def late(p):
        return 0 * p if (p == START).all() else gradient(p)

    ours, theirs = getattr(gt, name)(), getattr(optax.contrib, name)()
    assert np.isnan(run(theirs, 3, late)[0][-1]).all()
    params, state = run(ours, 3, late)
    assert (params == START).all()
    assert state.estim_lr == 1e-6


AGREE = {
    "dog": (0.8, ("heuristic", 0.1)),
    "dowg": (0.8,),
    "cocob": (),
    "dadapt_adamw": (1.0, (0.9, 0.99), 1e-3, 0.01, 0.1),
    "prodigy": (1.0, (0.9, 0.99), None, 1e-3, 0.01, 1.0, 0.1),
    "momo": (0.3, 0.9, 0.1, 0.0, True),
    "momo_adam": (0.3, 0.9, 0.99, 1e-3, 0.1, 0.0, True),
    "mechanize": (optax.sgd(0.1), 0.01, 1e-8, 0.1),
}


@pytest.mark.parametrize("name", AGREE)
def test_states_hold_what_those_of_optax_hold(name, x64):
    """Each leaf, signs included; so a run can be continued with the other library."""
    (_, ours), (_, theirs) = (run(getattr(lib, name)(*AGREE[name]), 5) for lib in (gt, optax.contrib))
    pairs = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree_util.tree_leaves_with_path(theirs), strict=True)
    for (path, a), (other, b) in pairs:
        assert path == other
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14, err_msg=jax.tree_util.keystr(path))


# Layer-wise DoG: not in tests/parity, whose problem has a scalar.


def layerwise(library, params, eps=0.5, steps=5, dtype=jnp.float64):
    """The updates of each step, at parameters that do not depend on the library, and the last state."""
    tx = library.scale_by_distance_over_gradients(0.01, eps, dtype, 0.7)
    state, found = tx.init(params), []
    for k in range(steps):
        g = jax.tree.map(lambda p, k=k: (k + 1) * jnp.cos(p), params)
        updates, state = tx.update(g, state, params)
        params = jax.tree.map(lambda p, g: p - 0.02 * g, params, g)
        found.append(updates)
    return found, state


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_layerwise_dog_agrees_on_arrays(dtype):
    with jax.enable_x64(dtype is jnp.float64):
        params = {"matrix": jnp.asarray(START, dtype), "vector": jnp.asarray(TARGET[0], dtype)}
        (ours, state), (theirs, their_state) = (layerwise(lib, params, dtype=dtype) for lib in (gt, optax))
        tolerance = 1e-6 if dtype is jnp.float32 else 1e-12
        chex.assert_trees_all_close(ours, theirs, rtol=tolerance)
        pairs = zip(*(jax.tree_util.tree_leaves_with_path(s) for s in (state, their_state)), strict=True)
        for (path, a), (other, b) in pairs:
            assert (path, a.shape, a.dtype) == (other, b.shape, b.dtype)
            np.testing.assert_allclose(a, b, rtol=tolerance)


def test_layerwise_dog_of_a_scalar_is_a_scalar(x64):
    """optax's update has shape (1,); apply_updates gives the parameter that shape."""
    params = jnp.asarray(0.5)
    (ours, _), (theirs, _) = (layerwise(lib, params, steps=1) for lib in (gt, optax))
    assert ours[0].shape == () and theirs[0].shape == (1,)
    np.testing.assert_allclose(ours[0], theirs[0][0], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Casting from complex")
def test_layerwise_dog_of_complex_parameters(x64):
    """That of the real and imaginary parts. optax drops the imaginary part of the start, and turns the gradient."""
    params = jnp.asarray(START[0] + 1j * TARGET[0])

    def parts(x):
        return np.stack([np.real(x), np.imag(x)])

    def first(library, p):
        tx = library.scale_by_distance_over_gradients(0.01, 0.5, jnp.float64)
        return tx.update(p, tx.init(p), p)

    real, _ = first(gt, jnp.asarray(parts(params)))
    np.testing.assert_allclose(parts(first(gt, params)[0]), real, rtol=1e-12)
    turned, state = first(optax, params)
    assert np.max(np.abs(np.imag(turned / params))) > 1e-5 and not jnp.iscomplexobj(state.init_params)


def test_layerwise_dog_at_a_gradient_of_zero_without_eps(x64):
    params = jnp.asarray(START)
    for library, expected in ((gt, 0.0), (optax, np.nan)):
        tx = library.scale_by_distance_over_gradients(eps=0.0)
        updates, _ = tx.update(0 * params, tx.init(params), params)
        np.testing.assert_array_equal(updates, expected * np.ones_like(START))


def test_layerwise_dog_keeps_the_types_of_its_state():
    params, g = jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.float32)
    for library, kept in ((gt, True), (optax, False)):
        tx = library.scale_by_distance_over_gradients()
        state = tx.init(params)
        _, new = tx.update(g, state, params)
        assert (jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, state)) is kept
