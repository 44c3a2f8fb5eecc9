# SPDX-License-Identifier: Apache-2.0
"""SPAM's and Stable-SPAM's parts, and both put together: the formulas over 100 steps with spikes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.spikes import SHAPES, SPIKES, assert_equal, gradients, norm, run, spoiled

SEQUENCE = gradients()


def memory():
    return {n: {} for n in SHAPES}


def spam_clip(g, s, threshold, b2):
    v = s.get("v", np.zeros_like(g))
    spike = (v > 0) & (g**2 > threshold * v)
    g = np.where(spike, np.sign(g) * np.sqrt(threshold * v), g)
    s["v"] = b2 * v + (1 - b2) * g**2
    return g


def stable_spam_clip(g, s, t, decay):
    largest = np.max(np.abs(g))
    s["M"] = decay * s.get("M", 0.0) + (1 - decay) * largest
    c = s["M"] / (1 - decay**t)
    return np.where(np.abs(g) > c, g / largest * c, g)


def stabilize_norm(g, s, t, b1, b2, eps):
    n = np.linalg.norm(g)
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * n
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * n**2
    return g / n * (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def adam(g, s, t, b1=0.9, b2=0.999, eps=1e-8):
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    return s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def over(sequence, step):
    s = memory()
    return [{n: step(x, s[n], t) for n, x in g.items()} for t, g in enumerate(sequence, 1)]


@pytest.mark.parametrize(("threshold", "b2"), [(5000.0, 0.999), (50.0, 0.9), (1.0, 0.5)])
def test_spam_clip_is_its_formula(x64, threshold, b2):
    found, _ = run(gt.spam_clip(threshold, b2), SEQUENCE)
    assert_equal(found, over(SEQUENCE, lambda g, s, t: spam_clip(g, s, threshold, b2)))


@pytest.mark.parametrize("decay", [0.999, 0.9, 0.0])
def test_stable_spam_clip_is_its_formula(x64, decay):
    found, _ = run(gt.stable_spam_clip(decay), SEQUENCE)
    assert_equal(found, over(SEQUENCE, lambda g, s, t: stable_spam_clip(g, s, t, decay)))


@pytest.mark.parametrize(("b1", "b2", "eps"), [(0.7, 0.9, 1e-8), (0.9, 0.99, 0.1), (0.0, 0.5, 0.0)])
def test_stabilize_norm_is_its_formula(x64, b1, b2, eps):
    found, _ = run(gt.stabilize_norm(b1, b2, eps), SEQUENCE)
    assert_equal(found, over(SEQUENCE, lambda g, s, t: stabilize_norm(g, s, t, b1, b2, eps)))


def test_stable_spam_put_together_is_its_algorithm(x64):
    tx = gt.chain(gt.stable_spam_clip(), gt.stabilize_norm(), gt.reset_every(gt.scale_by_adam(), 30))
    clip, stable, moments = memory(), memory(), memory()
    expected = []
    for t, g in enumerate(SEQUENCE, 1):
        if (t - 1) % 30 == 0:
            moments = memory()
        expected.append({})
        for n, x in g.items():
            x = stable_spam_clip(x, clip[n], t, 0.999)
            x = stabilize_norm(x, stable[n], t, 0.7, 0.9, 1e-8)
            expected[-1][n] = adam(x, moments[n], (t - 1) % 30 + 1)
    assert_equal(run(tx, SEQUENCE)[0], expected, rtol=1e-10)


def test_spam_put_together_clips_by_the_second_moment_of_its_adam(x64):
    b2 = 0.99
    tx = gt.reset_every(gt.chain(gt.spam_clip(50.0, b2), gt.scale_by_adam(b2=b2)), 25)
    moments, expected = memory(), []
    for t, g in enumerate(SEQUENCE, 1):
        if (t - 1) % 25 == 0:
            moments = memory()
        expected.append({})
        for n, x in g.items():
            v = moments[n].get("v", np.zeros_like(x))
            x = np.where((v > 0) & (x**2 > 50 * v), np.sign(x) * np.sqrt(50 * v), x)
            expected[-1][n] = adam(x, moments[n], (t - 1) % 25 + 1, b2=b2)
    assert_equal(run(tx, SEQUENCE)[0], expected, rtol=1e-10)


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
        np.testing.assert_allclose(seen["gradient_norm"], norm(SEQUENCE[t]), rtol=1e-5)
        np.testing.assert_allclose(seen["factor"], norm(found[t]) / norm(SEQUENCE[t]), rtol=1e-5)


@each
def test_half_precision(tx):
    half = [{n: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for n, x in g.items()} for g in SEQUENCE]
    found, states = run(tx, half, jnp.bfloat16)
    assert_equal(found, run(tx, half, np.float32)[0], rtol=1e-6)
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
