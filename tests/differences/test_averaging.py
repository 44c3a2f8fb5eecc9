# SPDX-License-Identifier: Apache-2.0
"""Where optax 0.2.8 differs from the papers of Schedule-Free, Sophia, SAM and DP-SGD, and what gradtx does.

Each formula here is one step on one array, `step(p, g, s, t) -> new p`, s being a dictionary that lives from step to
step.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")

START = np.random.default_rng(6).normal(size=(4, 3))


def gradient(p):
    return p - np.sin(2 * p) / 2


def objective(p):
    return jnp.sum(p**2 / 2 + jnp.cos(2 * p) / 4)


def run(tx, steps=12, **extra):
    params = jnp.asarray(START)
    state, found = tx.init(params), []
    for _ in range(steps):
        updates, state = tx.update(jnp.asarray(gradient(np.asarray(params))), state, params, **extra)
        params = params + updates
        found.append(np.asarray(params))
    return np.stack(found)


def run_formula(step, steps=12):
    p, s, found = START, {}, []
    for t in range(1, steps + 1):
        p = step(p, gradient(p), s, t)
        found.append(p)
    return np.stack(found)


def layout(state):
    return [(jax.tree_util.keystr(k), x.shape, x.dtype) for k, x in jax.tree_util.tree_leaves_with_path(state)]


def assert_equal(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def differ(a, b):
    return bool(np.nanmax(np.abs(a - b)) > 1e-3)


def schedule_free(rate, rate_in_weights, b1=0.9):
    def step(p, g, s, t):
        if t == 1:
            s.update(x=p, z=p, largest=0.0, total=0.0)
        s["z"] = s["z"] - rate(t) * g
        s["largest"] = max(s["largest"], rate_in_weights(t))
        s["total"] += s["largest"] ** 2
        c = s["largest"] ** 2 / s["total"]
        s["x"] = (1 - c) * s["x"] + c * s["z"]
        return b1 * s["x"] + (1 - b1) * s["z"]

    return step


def test_schedule_free_weighs_an_iterate_by_its_own_learning_rate(x64):
    """Algorithm 1: c_(t+1) is γ_t² over the sum of γ_i² to t, and z moves by γ_t. optax's c has γ_(t+1)."""

    def schedule(count):
        return 0.05 * (1 + jnp.asarray(count, float))

    ours, theirs = (f(optax.sgd(schedule), schedule) for f in (gt.schedule_free, optax.contrib.schedule_free))
    assert_equal(run(theirs), run_formula(schedule_free(lambda t: 0.05 * t, lambda t: 0.05 * (t + 1))))
    assert_equal(run(ours), run_formula(schedule_free(lambda t: 0.05 * t, lambda t: 0.05 * t)))
    assert differ(run(ours), run(theirs))


def test_schedule_free_warms_up_from_the_first_step_on(x64):
    """Algorithm 1: γ_t = γ min(1, t / T_warmup) with t from 1. optax starts with the rate 0, a step late."""
    ours, theirs = (f(0.3, 4) for f in (gt.schedule_free_sgd, optax.contrib.schedule_free_sgd))

    def weight(t):
        return 0.3 * min(1.0, t / 4)

    # optax counts the warm-up in float32.
    assert_equal(run(theirs), run_formula(schedule_free(lambda t: weight(t - 1), weight)), 1e-6)
    assert_equal(run(ours), run_formula(schedule_free(weight, weight)))
    assert differ(run(ours), run(theirs))


def test_schedule_free_adds_its_weights_in_float32():
    """In bfloat16, the sum of equal weights stops at 256 of them, and the average turns into a moving one."""
    params = jnp.ones(3, jnp.bfloat16)
    for f, dtype, total in (
        (gt.schedule_free_sgd, jnp.float32, 10.0),
        (optax.contrib.schedule_free_sgd, jnp.bfloat16, 4.0),
    ):
        tx = f(0.1)
        state = tx.init(params)
        assert state.weight_sum.dtype == state.max_lr.dtype == state.b1.dtype == dtype

        def one(state, _, tx=tx):
            return tx.update(jnp.zeros_like(params), state, params)[1], None

        state, _ = jax.lax.scan(one, state, None, length=1000)
        np.testing.assert_allclose(float(state.weight_sum), total, rtol=1e-4)


def sophia(b1, b2, gamma, eps, every, *, corrected, late):
    def step(p, g, s, t):
        before = s.get("h", 0.0)
        if (t - 1) % every == 0:
            s["h"] = b2 * before + (1 - b2) * (1 - np.cos(2 * p))  # of ±1, the diagonal Hessian is exact
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        m = s["m"] / (1 - b1**t) if corrected else s["m"]
        return p - 0.02 * np.clip(m / np.maximum(gamma * (before if late else s["h"]), eps), -1, 1)

    return step


def test_sophia_uses_its_first_moment_as_it_is_and_the_hessian_of_the_step(x64):
    """Algorithm 3: m_t without bias correction, and h_t at the step that estimates it. optax corrects m_t, and divides
    by the h of the step before, which at the first is 0: a step of the clipping threshold in each coordinate."""
    settings = dict(b1=0.9, b2=0.8, gamma=1.0, eps=1e-3, weight_decay=0.0, update_interval=3)
    ours, theirs = (f(0.02, **settings) for f in (gt.sophia, optax.contrib.sophia))
    numbers = 0.9, 0.8, 1.0, 1e-3, 3
    assert_equal(run(theirs, obj_fn=objective), run_formula(sophia(*numbers, corrected=True, late=True)))
    assert_equal(run(ours, obj_fn=objective), run_formula(sophia(*numbers, corrected=False, late=False)))
    assert differ(run(ours, obj_fn=objective), run(theirs, obj_fn=objective))
    assert layout(ours.init(jnp.ones(3))) == layout(theirs.init(jnp.ones(3)))


def test_sam_with_a_period_of_1_is_its_optimizer(x64):
    """Every step is the optimizer's, from where the last ended. optax takes every second back to the one before it."""
    ours, theirs = (f(optax.sgd(0.1), optax.sgd(0.05), sync_period=1) for f in (gt.sam, optax.contrib.sam))
    assert_equal(run(ours), run(optax.sgd(0.1)))
    found = run(theirs)
    assert_equal(found[0], run(optax.sgd(0.1))[0])
    assert differ(found, run(optax.sgd(0.1)))


def test_sam_averages_over_the_batch_axis_in_both_modes():
    """optax does in opaque mode only."""
    gradients = jnp.asarray([[2.0, 0.0], [0.0, 4.0]])

    def second_step(sam):
        def one(g):
            tx = sam(optax.sgd(0.1), optax.sgd(0.05), batch_axis_name="batch")
            params = jnp.ones(2)
            up, state = tx.update(g, tx.init(params), params)
            down, _ = tx.update(g, state, params + up)
            return params + up + down

        return jax.vmap(one, axis_name="batch")(gradients)

    np.testing.assert_allclose(second_step(gt.sam), [[0.9, 0.8], [0.9, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(second_step(optax.contrib.sam), [[0.8, 1.0], [1.0, 0.6]], rtol=1e-6)


def test_normalizing_zero_gives_zero():
    """SAM at a stationary point has nowhere to climb; optax's ascent is NaN there, and with it all that follows."""
    zeros = jnp.zeros(3)
    for f, expected in ((gt.normalize, 0.0), (optax.contrib.normalize, np.nan)):
        updates, _ = f().update(zeros, f().init(zeros))
        np.testing.assert_array_equal(updates, np.full(3, expected))


def test_the_noise_of_complex_gradients_has_its_deviation_in_both_parts():
    """A complex coordinate is two real ones, which the clipping bounds together; each needs the noise of a real one."""
    zeros = jnp.zeros((1, 20_000), jnp.complex64)
    aggregates = gt.differentially_private_aggregate, optax.contrib.differentially_private_aggregate
    for f, deviation in zip(aggregates, (1.0, 0.5**0.5), strict=True):
        tx = f(1.0, 1.0, 3)
        updates, _ = tx.update(zeros, tx.init(zeros[0]))
        for part in (jnp.real(updates), jnp.imag(updates)):
            np.testing.assert_allclose(jnp.std(part), deviation, rtol=0.02)


def test_the_seed_of_hutchinson_may_be_a_number():
    """As that of every other random stage. optax keeps the number as the key, and update fails."""
    params = jnp.ones(3)
    for f, key in (
        (gt.curvature.hutchinson_estimator_diag_hessian, [0, 5]),
        (optax.contrib.hutchinson_estimator_diag_hessian, 5),
    ):
        np.testing.assert_array_equal(f(5).init(params).key, key)


def test_no_warm_up():
    theirs, ours = optax.warmup_constant_schedule(0.0, 1.0, 0), gt.warmup_constant_schedule(0.0, 1.0, 0)
    assert theirs(0) == theirs(100) == 0 and ours(0) == ours(100) == 1
    p, ours = jnp.ones(2), gt.schedule_free_sgd(0.1, warmup_steps=0)
    theirs = optax.contrib.schedule_free_sgd(0.1, warmup_steps=0)
    assert (theirs.update(p, theirs.init(p), p)[0] == 0).all() and (ours.update(p, ours.init(p), p)[0] < 0).all()
