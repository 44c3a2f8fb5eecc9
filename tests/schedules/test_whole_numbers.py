# SPDX-License-Identifier: Apache-2.0
"""Steps beyond 2**24, where float32 skips whole numbers, unsigned counts, and steps beyond what counts can hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.schedules import ademamix_alpha_schedule, ademamix_b3_schedule, linear, warmup
from support.schedules import CASES, Case

FAR = 20_000_000
COUNTS = [2**24 - 1, 2**24, 2**24 + 1, FAR, FAR + 1, 2**31 - 2, 2**31 - 1]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.call)
def test_every_schedule_at_large_counts(case: Case):
    """In float32 and with the counts of optimizers, against its formula in float64."""
    wanted = [case.formula(t) for t in COUNTS]
    for found in (case.schedule(jnp.asarray(COUNTS, jnp.int32)), [case.schedule(t) for t in COUNTS]):
        np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("case", [c for c in CASES if c.smooth_steps], ids=lambda c: c.call)
def test_every_schedule_over_many_steps(case: Case):
    """The same curve, a million times as long."""
    long, counts = case.schedule.stretch(1_000_000), [round(t * 1_000_000) for t in case.smooth_steps]
    found, wanted = long(jnp.asarray(counts, jnp.int32)), [case.formula(t) for t in case.smooth_steps]
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=1e-5, atol=1e-6)


def test_warm_ups_over_many_steps():
    """Those of AdEMAMix, which count from 1."""
    done = np.minimum((np.asarray(COUNTS, np.float64) + 1) / 2**30, 1)
    found = ademamix_alpha_schedule(5.0, 2**30)(jnp.asarray(COUNTS, jnp.int32))
    np.testing.assert_allclose(found, 5.0 * done, rtol=1e-6)
    a, b = np.log(0.9), np.log(0.9999)
    found = ademamix_b3_schedule(0.9999, 2**30, 0.9)(jnp.asarray(COUNTS, jnp.int32))
    np.testing.assert_allclose(found, np.exp(a * b / ((1 - done) * b + done * a)), rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        (gradtx.linear_schedule(1.0, 0.0, 100, FAR), FAR + 11, 0.89),
        (gradtx.linear_schedule(1.0, 0.0, np.int64(100), np.int64(FAR)), FAR + 11, 0.89),
        (gradtx.linear_schedule(1.0, 0.0, jnp.asarray(100), jnp.asarray(FAR)), FAR + 11, 0.89),
        (gradtx.polynomial_schedule(1.0, 0.0, 2, 100, FAR), FAR + 11, 0.89**2),
        (gradtx.polynomial_schedule(1.0, 0.0, 1, FAR + 1, cycle=True), FAR + 2, FAR / (FAR + 1) / 2),
        (gradtx.piecewise_constant_schedule(1.0, {FAR + 1: 0.5}), FAR, 1.0),
        (gradtx.piecewise_constant_schedule(1.0, {FAR + 1: 0.5}), FAR + 1, 0.5),
        (gradtx.piecewise_values_schedule([FAR + 1, FAR + 3], [1.0, 2.0, 3.0]), FAR, 1.0),
        (gradtx.piecewise_values_schedule([FAR + 0.5], [1.0, 2.0]), FAR, 1.0),
        (gradtx.piecewise_interpolate_schedule("linear", 1.0, {FAR: 1.0, FAR + 100: 0.0}), FAR + 11, 0.89),
        (gradtx.exponential_decay(1.0, 1, 0.5, transition_begin=FAR), FAR + 1, 0.5),
        (gradtx.exponential_decay(1.0, FAR, 0.5, staircase=True), FAR - 1, 1.0),
        (gradtx.inverse_time_decay(1.0, FAR, 1.0, staircase=True), FAR - 1, 1.0),
        (gradtx.natural_exponential_decay(1.0, FAR, 1.0, staircase=True), FAR - 1, 1.0),
        (gradtx.step_decay_schedule(1.0, FAR), FAR - 1, 1.0),
        (gradtx.warmup_cosine_decay_schedule(0.0, 1.0, FAR + 1, FAR + 3), FAR + 2, 0.5),
        (gradtx.warmup_exponential_decay_schedule(0.0, 1.0, FAR + 1, 1, 0.5), FAR + 2, 0.5),
        (gradtx.wsd_schedule(0.0, 1.0, FAR, 1, 100), FAR + 12, 0.89),
        (gradtx.join_schedules([warmup(1), linear(100)], [FAR + 1]), FAR + 12, 0.89),
    ],
)
def test_whole_numbers_are_compared_and_subtracted_as_whole_numbers(schedule, step: int, expected: float):
    np.testing.assert_allclose(schedule(step), expected, rtol=1e-6)


@pytest.mark.parametrize("curve", [linear, gradtx.schedules.cosine, gradtx.schedules.one_minus_sqrt])
def test_a_decay_ends_at_its_last_step_and_not_before(curve):
    assert curve(FAR + 1)(FAR) > 0.0 == curve(FAR + 1)(FAR + 1)


def test_numbers_of_steps_that_are_traced():
    schedule = gradtx.linear_schedule(1.0, 0.0, 100, FAR)
    np.testing.assert_allclose(jax.jit(lambda s, t: s(t))(schedule, jnp.asarray(FAR + 11)), 0.89, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_counts_of_any_whole_type(dtype: str):
    joined = gradtx.join_schedules([linear(2), linear(8)], [3])
    count = jnp.arange(6, dtype=dtype)
    np.testing.assert_allclose(joined(count), [1, 0.5, 0, 1, 0.875, 0.75])
    np.testing.assert_allclose(linear(10).shift(-3)(count), [0.7, 0.6, 0.5, 0.4, 0.3, 0.2], rtol=1e-6)
    np.testing.assert_allclose(jax.jit(linear(10).shift(-3))(count), [0.7, 0.6, 0.5, 0.4, 0.3, 0.2], rtol=1e-6)


def test_the_largest_unsigned_count():
    for count in (jnp.uint32(2**32 - 1), np.uint32(2**32 - 1), 2**32 - 1):
        assert gradtx.join_schedules([linear(2), gradtx.constant_schedule(3.0)], [FAR])(count) == 3.0


@pytest.mark.parametrize("step", [2**31, 2**40, 10**30, np.int64(2**40), np.asarray([2**31, 2**40])])
def test_steps_beyond_what_a_count_can_hold(step):
    np.testing.assert_allclose(linear(10)(step), np.zeros(np.shape(step)))
    np.testing.assert_allclose(linear(2**50)(step), np.maximum(1 - np.asarray(step, float) / 2**50, 0), rtol=1e-6)


def test_a_boundary_that_no_count_reaches():
    joined = gradtx.join_schedules([gradtx.constant_schedule(1.0), gradtx.constant_schedule(2.0)], [2**31])
    assert joined(2**31 - 1) == 1.0 and joined(2**31) == 2.0


@pytest.mark.parametrize("step", [1j, jax.random.key(0)])
def test_a_step_that_is_no_real_number(step):
    with pytest.raises(TypeError, match="a function of the step, a real number"):
        linear(10)(step)


@pytest.mark.parametrize(
    ("at", "error", "message"),
    [
        (2**31, ValueError, "at must be at most 2147483647, since count is int32"),
        (np.int64(2**40), ValueError, "at must be at most 2147483647"),
        (float("inf"), ValueError, "whole number of at least 0, got inf"),
        (float("nan"), ValueError, "whole number of at least 0, got nan"),
        (True, TypeError, "whole number of at least 0, got True"),
        ("x", TypeError, "whole number of at least 0, got 'x'"),
    ],
)
def test_a_restart_at_what_is_no_step(at, error: type[Exception], message: str):
    state = gradtx.scale_by_schedule(linear(10)).init(jnp.ones(2))
    with pytest.raises(error, match=f"restart: {message}|restart: at must be a {message}"):
        gradtx.restart(state, at)
    assert gradtx.restart(state, 2**31 - 1).count == 2**31 - 1
