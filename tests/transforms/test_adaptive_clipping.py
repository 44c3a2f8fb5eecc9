# SPDX-License-Identifier: Apache-2.0
"""Clipping to a threshold from the norms before: spikes and what is not finite. Formulas: tests/formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.spikes import SPIKES, assert_equal, gradients, norm, run, same_but_what_happened, spoiled

SEQUENCE = gradients()


ALL = [gt.autoclip(50.0, 20), gt.zclip(warmup_steps=10), gt.clip_spikes(), gt.clip_spikes(statistic="median")]
each = pytest.mark.parametrize("tx", ALL, ids=repr)


@each
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 5, 40])
def test_what_is_not_finite_does_not_reach_the_statistics(tx, value, at):
    bad = [*SEQUENCE[:at], spoiled(SEQUENCE[at], "w", value), *SEQUENCE[at:]]
    found, states = run(tx, bad, np.float32)
    expected, clean = run(tx, SEQUENCE, np.float32)
    assert_equal(found[:at] + found[at + 1 :], expected, rtol=0)
    same_but_what_happened(states[-1], clean[-1])
    assert not np.isfinite(gt.metrics(states[at])["grad_norm"])


@each
def test_of_an_infinite_norm_nothing_is_left_and_nan_stays(tx):
    for at in (0, 25):  # while there is no threshold, too
        u = run(tx, [*SEQUENCE[:at], spoiled(SEQUENCE[at], "w", np.inf)], np.float32)[0][-1]
        assert all(np.all(x == 0) for x in u.values())
    u = run(tx, [*SEQUENCE[:25], {n: x * 1e30 for n, x in SEQUENCE[25].items()}], np.float32)[0][-1]
    assert all(np.all(x == 0) for x in u.values())  # finite gradients whose norm is not
    bad = spoiled(SEQUENCE[25], "w", np.nan)
    u = run(tx, [*SEQUENCE[:25], bad], np.float32)[0][-1]
    assert_equal([u], [bad], rtol=1e-6)


@each
def test_spikes_are_clipped_and_published(tx):
    updates, states = run(tx, SEQUENCE, np.float32)
    for t in SPIKES:
        seen = {n: float(x) for n, x in gt.metrics(states[t]).items()}
        np.testing.assert_allclose(seen["grad_norm"], norm(SEQUENCE[t]), rtol=1e-6)
        np.testing.assert_allclose(norm(updates[t]), seen["threshold"], rtol=1e-5)
        np.testing.assert_allclose(seen["clip_factor"], norm(updates[t]) / norm(SEQUENCE[t]), rtol=1e-5)
        assert seen["clip_factor"] < 0.2
    clipped = [norm(u) < norm(g) * (1 - 1e-6) for u, g in zip(updates, SEQUENCE, strict=True)]
    np.testing.assert_allclose(seen := gt.metrics(states[-1])["clipped_fraction"], np.mean(clipped), rtol=1e-6)
    assert seen >= len(SPIKES) / len(SEQUENCE)


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


def test_a_spike_raises_no_later_threshold():
    tx = gt.clip_spikes(window=20)
    before = run(tx, SEQUENCE[:30], np.float32)[1][-1]
    after = run(tx, SEQUENCE[:31], np.float32)[1][-1]
    same_but_what_happened(before._replace(in_a_row=after.in_a_row), after)


@pytest.mark.parametrize("patience", [0, 3, 10])
def test_norms_that_rise_for_good_are_let_in(patience):
    rise = [{n: (100 if t >= 50 else 1) * x for n, x in g.items()} for t, g in enumerate(gradients(100, ()))]
    found, _ = run(gt.clip_spikes(window=20, patience=patience), rise, np.float32)
    clipped = [norm(u) < 0.99 * norm(g) for u, g in zip(found, rise, strict=True)]
    assert all(clipped[50 : 50 + patience + 1])
    assert not any(clipped[75:])


def test_a_window_that_can_never_be_full_enough():
    with pytest.raises(ValueError, match="clip_spikes: min_history must be at most window, which is 8, got 9"):
        gt.clip_spikes(window=8, min_history=9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gt.autoclip(101.0), r"autoclip: percentile must be in \[0, 100\], got 101"),
        (lambda: gt.autoclip(window=0), "autoclip: window must be a whole number >= 1, got 0"),
        (lambda: gt.zclip(0.0), "zclip: z_threshold must be a number > 0, got 0"),
        (lambda: gt.zclip(to="median"), "zclip: to must be one of"),
        (lambda: gt.clip_spikes(patience=-1), "clip_spikes: patience must be a whole number >= 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_population_of_thresholds():
    def last(z):
        return run_in_scan(gt.zclip(z, warmup_steps=5))

    several = jax.vmap(last)(jnp.asarray([1.0, 3.0]))
    for i, z in enumerate((1.0, 3.0)):
        np.testing.assert_allclose(several[i], last(z), rtol=1e-5)


def run_in_scan(tx):
    g = jnp.asarray(np.stack([x["v"] for x in SEQUENCE]), jnp.float32)
    step = lambda state, g: tx.update(g, state)[::-1]  # noqa: E731  # the body of a scan
    return jax.lax.scan(step, tx.init(g[0]), g)[1]
