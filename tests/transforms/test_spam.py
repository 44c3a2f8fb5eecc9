# SPDX-License-Identifier: Apache-2.0
"""SPAM's and Stable-SPAM's parts: spikes, zeros and what is not finite. Formulas: tests/formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.spikes import SHAPES, SPIKES, assert_equal, gradients, norm, run, spoiled

SEQUENCE = gradients()


ALL = [gt.spam_clip(50.0, 0.9), gt.stable_spam_clip(), gt.stabilize_norm()]
each = pytest.mark.parametrize("tx", ALL, ids=repr)


@each
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 5, 40])
def test_what_is_not_finite_does_not_reach_the_averages(tx, value, at):
    _, states = run(tx, [*SEQUENCE[:at], spoiled(SEQUENCE[at], "w", value), *SEQUENCE[at + 1 :]], np.float32)
    _, clean = run(tx, SEQUENCE, np.float32)
    before = tx.init({n: jnp.ones(shape) for n, shape in SHAPES.items()}) if at == 0 else clean[at - 1]
    statistics = set(before._fields) - {"clipped", "elements", "norm_before", "norm_after"}
    for name in statistics:
        assert all(np.all(np.isfinite(x)) for x in getattr(states[-1], name).values())
        new, old, good = (getattr(s, name) for s in (states[at], before, clean[at]))
        np.testing.assert_array_equal(new["v"], good["v"])  # the other parameters do not notice
        if name != "nu":
            np.testing.assert_array_equal(new["w"], old["w"])
        else:  # which is elementwise; an infinite element is clipped first, once there is something to clip to
            np.testing.assert_array_equal(np.ravel(new["w"])[1:], np.ravel(good["w"])[1:])
            if np.isnan(value) or at == 0:
                np.testing.assert_array_equal(np.ravel(new["w"])[0], np.ravel(old["w"])[0])


@pytest.mark.slow
def test_infinite_elements_are_clipped_and_nan_stays():
    for tx in (gt.spam_clip(50.0, 0.9), gt.stable_spam_clip()):
        for value in (np.inf, -np.inf):
            u = run(tx, [*SEQUENCE[:20], spoiled(SEQUENCE[20], "w", value)], np.float32)[0][-1]["w"]
            assert np.all(np.isfinite(u)) and np.sign(u[0, 0]) == np.sign(value)
        u = run(tx, [*SEQUENCE[:20], spoiled(SEQUENCE[20], "w", np.nan)], np.float32)[0][-1]["w"]
        assert np.isnan(u).sum() == 1


def test_an_infinite_norm_is_not_a_direction():
    tx = gt.stabilize_norm()
    for bad in (spoiled(SEQUENCE[20], "w", np.inf), {**SEQUENCE[20], "w": SEQUENCE[20]["w"] * 1e30}):
        u = run(tx, [*SEQUENCE[:20], bad], np.float32)[0][-1]
        np.testing.assert_array_equal(u["w"], 0)
        assert norm({"v": u["v"]}) > 0.5


def test_metrics():
    for tx in (gt.spam_clip(50.0, 0.9), gt.stable_spam_clip(0.9)):
        found, states = run(tx, SEQUENCE, np.float32)
        for t in (0, 10, *SPIKES):
            changed = [np.abs(SEQUENCE[t][n]) > (1 + 1e-6) * np.abs(found[t][n]) for n in SHAPES]
            share = np.mean(np.concatenate([np.ravel(x) for x in changed]))
            np.testing.assert_allclose(gt.metrics(states[t])["clipped_fraction"], share, rtol=1e-6)
    found, states = run(gt.stabilize_norm(), SEQUENCE, np.float32)
    for t in (0, *SPIKES):
        seen = gt.metrics(states[t])
        np.testing.assert_allclose(seen["grad_norm"], norm(SEQUENCE[t]), rtol=1e-5)
        np.testing.assert_allclose(seen["factor"], norm(found[t]) / norm(SEQUENCE[t]), rtol=1e-5)


@each
def test_half_precision(tx):
    half = [{n: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for n, x in g.items()} for g in SEQUENCE]
    found, states = run(tx, half, jnp.bfloat16)
    wide, _ = run(tx, half, np.float32)
    assert_equal(found, jax.tree.map(lambda u: jnp.asarray(u, jnp.bfloat16), wide), rtol=1e-6)
    kept = [x.dtype for x in jax.tree.leaves(states[-1]) if jnp.issubdtype(x.dtype, jnp.inexact)]
    assert set(kept) == {jnp.dtype(jnp.float32)}


@each
def test_a_time_of_zeros_does_not_stop_the_gradients_after_it(tx):
    zeros = [{n: 0 * x for n, x in g.items()} for g in SEQUENCE[:30]]
    found, _ = run(tx, [*zeros, *SEQUENCE[:30]], np.float32)
    assert all(norm(u) == 0 for u in found[:30])
    assert all(norm(u) > 0 for u in found[30:])


@each
def test_complex_parameters_are_clipped_by_magnitude(tx):
    rng = np.random.default_rng(0)
    state = tx.init(jnp.ones(3, jnp.complex64))
    for size in [1.0] * 20 + [1e6]:
        g = size * (rng.normal(size=3) + 1j * rng.normal(size=3))
        u, state = tx.update(jnp.asarray(g, jnp.complex64), state)
    np.testing.assert_allclose(np.angle(u), np.angle(g), rtol=1e-5)
    assert np.all(np.abs(u) < 0.5 * np.abs(g))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gt.spam_clip(0.0), "spam_clip: threshold must be a number > 0, got 0"),
        (lambda: gt.stable_spam_clip(1.0), r"stable_spam_clip: decay must be in \[0, 1\), got 1"),
        (lambda: gt.stabilize_norm(eps=-1.0), "stabilize_norm: eps must be a number >= 0, got -1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
