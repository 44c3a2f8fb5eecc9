# SPDX-License-Identifier: Apache-2.0
"""Schedules made of schedules: ends, joints, restarts, decays that a run starts itself, and counts beyond 2**24."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import chebyshev_schedule, piecewise_values_schedule, power_schedule, wsd_schedule
from gradtx.schedules import (
    at,
    constant,
    cosine,
    inverse_sqrt,
    linear,
    multiplicative_schedule,
    one_minus_sqrt,
    rex,
    warmup,
)
from gradtx.schedules._schedule import Schedule
from support.public import NAMES

COUNTS = jnp.arange(60)


def equal(one: Schedule, other: Schedule, tolerance: float = 1e-14) -> None:
    np.testing.assert_allclose(one(COUNTS), other(COUNTS), rtol=tolerance, atol=tolerance)


# Values.


@pytest.mark.parametrize(
    "text",
    [
        "warmup(1000).then(cosine(9000))",
        "warmup(10).then(constant()).scale(linear(5).shift(30)).scale(0.0003)",
        "constant(steps=7).then(linear(3).then(cosine(4)).repeat(times=2)).clip(high=0.9)",
        "inverse_sqrt(7).add(warmup(3).stretch(2.5).staircase(5)).until",
    ],
)
def test_an_expression_prints_as_what_makes_it(text: str):
    text = text.removesuffix(".until")
    value = eval(text, dict(NAMES))
    assert repr(value) == text and eval(repr(value), dict(NAMES)) == value


def test_operators_are_the_methods():
    rate, other = cosine(9), warmup(4)
    assert 0.5 * rate == rate * 0.5 == rate.scale(0.5)
    assert 0.5 + rate == rate + 0.5 == rate.add(0.5)
    assert rate * other == rate.scale(other) and rate + other == rate.add(other)
    assert rate - other == rate.subtract(other) and rate / other == rate.divide(other)
    for scalar in (np.float64(0.5), np.float32(0.5), jnp.float32(0.5), np.asarray(0.5), jnp.asarray(0.5)):
        np.testing.assert_allclose((scalar * rate)(3), 0.5 * rate(3), rtol=1e-6)
        np.testing.assert_allclose((scalar + rate)(3), 0.5 + rate(3), rtol=1e-6)
        np.testing.assert_allclose((scalar - rate)(3), 0.5 - rate(3), rtol=1e-6)


def test_differences_and_quotients():
    def root(count):
        return jnp.sqrt(1.0 + count.astype(float))

    rate, other, t = linear(10), warmup(8, start=0.5), np.arange(12)
    a, b = 1 - np.minimum(t / 10, 1), 0.5 + 0.5 * np.minimum(t / 8, 1)
    cases = [
        (-rate, -a),
        (rate - 1, a - 1),
        (rate - other, a - b),
        (rate / 3, a / 3),
        (rate / other, a / b),
        (1 - rate, 1 - a),
        (rate - root, a - np.sqrt(1.0 + t)),
        (root - rate, np.sqrt(1.0 + t) - a),
    ]
    for schedule, expected in cases:
        np.testing.assert_allclose(schedule(t), expected, rtol=1e-6, atol=1e-7)
        assert schedule == jax.tree.unflatten(jax.tree.structure(schedule), jax.tree.leaves(schedule))
    assert (rate - other).length == (1 - rate).length == (rate / 3).length == 10
    assert repr(1 - rate) == "linear(10).scale(-1).add(1)" and eval(repr(1 - rate), dict(NAMES)) == 1 - rate
    with pytest.raises(TypeError, match="subtract: other must be a number, an array or a schedule"):
        rate - "x"  # type: ignore[operator]  # what is refused


def test_any_function_of_the_step_can_be_a_part():
    def half(count):
        return jnp.where(count > 2, 0.5, 1.0)

    value = (linear(4) * half + half).then(half, after=4)
    np.testing.assert_allclose(value(jnp.arange(8)), [2, 1.75, 1.5, 0.625, 1, 1, 1, 0.5])
    assert value == (linear(4) * half + half).then(half, after=4) and value.length is None


# Ends.


@pytest.mark.parametrize(
    ("call", "length"),
    [
        ("constant()", None),
        ("constant(5)", 5),
        ("constant_schedule(1.0)", None),
        ("inverse_sqrt(5)", None),
        ("exponential_decay(1.0, 5, 0.5)", None),
        ("piecewise_values_schedule([3], [1.0, 0.5])", None),
        ("warmup_constant_schedule(0.0, 1.0, 5)", None),
        ("cyclic_schedule(0.0, 1.0, 5)", None),
        ("polynomial_schedule(1.0, 0.0, 2.0, 5, cycle=True)", None),
        ("polynomial_schedule(1.0, 0.0, 2.0, 5, 3)", 8),
        ("linear_schedule(1.0, 0.0, 5, 3)", 8),
        ("cosine_decay_schedule(1.0, 5)", 5),
        ("warmup_cosine_decay_schedule(0.0, 1.0, 5, 50)", 50),
        ("cosine_onecycle_schedule(50, 1.0)", 50),
        ("linear_onecycle_schedule(50, 1.0)", 50),
        ("piecewise_interpolate_schedule('linear', 1.0, {3: 0.5, 9: 0.1})", 9),
        ("piecewise_interpolate_schedule('linear', 1.0)", None),
        ("join_schedules([linear(5), linear(7)], [3])", 10),
        ("join_schedules([linear(5), constant()], [3])", None),
        ("sgdr_schedule([dict(init_value=0.0, peak_value=1.0, warmup_steps=2, decay_steps=9)] * 3)", 27),
        ("wsd_schedule(0.0, 1.0, 2, 5, 3)", 10),
        ("chebyshev_schedule(8, 0.1, 1.0)", 8),
        ("multiplicative_schedule(1.0, linear(5), 20)", 20),
        ("linear(5).then(linear(7))", 12),
        ("constant().then(linear(7), after=3)", 10),
        ("linear(5) * 2", 5),
        ("linear(5) * linear(7)", 7),
        ("linear(5) + constant()", None),
        ("linear(5).clip(low=0.1)", 5),
        ("linear(5).shift(3)", 8),
        ("linear(5).shift(-3)", 2),
        ("linear(5).shift(-7)", 0),
        ("linear(5).until(30)", 30),
        ("linear(5).stretch(3)", 15),
        ("linear(5).staircase(2)", 6),
        ("linear(5).repeat()", None),
        ("linear(5).repeat(3, growth=2)", 35),
    ],
)
def test_ends(call: str, length: float | None):
    value = eval(call, dict(NAMES))
    assert value.length == length
    if length is not None:
        beyond = np.asarray(value(jnp.asarray([length, length + 1, length + 1000])))
        assert "multiplicative" in call or (beyond == beyond[0]).all()
    assert jax.tree.map(jnp.asarray, value).length == length


def test_what_has_no_end_needs_one():
    with pytest.raises(ValueError, match=r"then: constant\(\) has no end; say at which step .* after=1000"):
        constant().then(cosine(9))
    for make in (lambda: inverse_sqrt(5).repeat(), lambda: (linear(3) * constant()).until(9)):
        with pytest.raises(ValueError, match=r"has no end; give it one"):
            make()
    assert constant().then(cosine(9), after=3).length == 12


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: warmup(-1), ValueError, "warmup: steps must be a number >= 0, got -1"),
        (lambda: cosine(9, end="low"), TypeError, "cosine: end must be a number.*'low'"),
        (lambda: constant(-1), ValueError, "constant: steps must be a number >= 0, got -1"),
        (lambda: inverse_sqrt(0.0), ValueError, "inverse_sqrt: timescale must be a number > 0"),
        (lambda: power_schedule(0.1, 32, 100, b=0.5), ValueError, "power_schedule: b must be"),
        (lambda: chebyshev_schedule(6, 0.1, 1.0), ValueError, "chebyshev_schedule: steps must be a power of 2, got 6"),
        (lambda: chebyshev_schedule(8, 1.0, 0.1), ValueError, "max_curvature .* min_curvature = 1.0, got 0.1"),
        (lambda: wsd_schedule(0.0, 1.0, 1, 1, 0), ValueError, "wsd_schedule: decay_steps must be a number > 0"),
        (lambda: wsd_schedule(0.0, 1.0, 1, 1, 1, shape="x"), ValueError, "wsd_schedule: shape must be one of .*1-sqrt"),
        (lambda: gradtx.cyclic_schedule(0.0, 1.0, 5, mode="up"), ValueError, "mode must be one of .*triangular2"),
        (lambda: multiplicative_schedule(1.0, 0.9, 5), TypeError, "factor must be a function of the step, got 0.9"),
        (lambda: cosine(9).then(0.1), TypeError, "then: following must be a function of the step.*got 0.1"),
        (lambda: cosine(9).scale("half"), TypeError, "scale: factor must be a number, an array or a schedule"),
        (lambda: cosine(9) + None, TypeError, "add: other must be a number, an array or a schedule"),
        (lambda: cosine(9).stretch(0), ValueError, "stretch: factor must be a number > 0, got 0"),
        (lambda: cosine(9).staircase(-5), ValueError, "staircase: every must be a number > 0, got -5"),
        (lambda: cosine(9).shift(math.nan), ValueError, "shift: steps must be a number, got nan"),
        (lambda: cosine(9).clip(0.5, 0.1), ValueError, "clip: high must be at least low = 0.5, got 0.1"),
        (lambda: cosine(9).repeat(0), ValueError, "repeat: times must be a whole number >= 1, got 0"),
        (lambda: cosine(9).repeat(growth=0.5), ValueError, "repeat: growth must be a number >= 1, got 0.5"),
        (lambda: at(-1, 10), ValueError, "at: epochs must be a number >= 0, got -1"),
        (lambda: at(1, 0), ValueError, "at: steps_per_epoch must be a number > 0, got 0"),
    ],
)
def test_refused(make, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()


# What the pieces make.


@pytest.mark.slow
def test_schedules_of_the_literature_are_expressions(x64: None):
    wsd = wsd_schedule(0.0, 0.3, 10, 20, 15, shape="1-sqrt")
    equal(0.3 * warmup(10).then(constant(20)).then(one_minus_sqrt(15)), wsd)
    equal(0.3 * warmup(10).then(constant()) * one_minus_sqrt(15).until(45), wsd)
    equal(0.3 * warmup(10).then(constant()) * one_minus_sqrt(15).shift(30), wsd)
    t = np.arange(60)
    transformer = np.minimum(t / 10, 1 / np.sqrt(np.maximum(t, 1) / 10))
    np.testing.assert_allclose(warmup(10).then(inverse_sqrt(10))(COUNTS), transformer, rtol=1e-14)
    cooled = warmup(10).then(inverse_sqrt(5, shift=3)) * linear(12).until(50)
    expected = np.minimum(t / 10, 1.0) * np.clip((50 - t) / 12, 0, 1)
    expected[10:] /= np.sqrt(1 + (t[10:] - 10 + 3) / 5)
    np.testing.assert_allclose(cooled(COUNTS), expected, rtol=1e-14)
    triangular = gradtx.cyclic_schedule(0.1, 1.0, 5, 8)
    equal(0.9 * warmup(5).then(linear(8)).repeat() + 0.1, triangular)
    per_step = warmup(20).shift(-1)
    np.testing.assert_allclose(per_step(COUNTS), np.minimum((t + 1) / 20, 1), rtol=1e-14)


def test_staircases_equal_the_flags(x64: None):
    for name, arguments in (
        ("exponential_decay", (0.6, 7, 0.8)),
        ("inverse_time_decay", (0.6, 7, 0.5)),
        ("natural_exponential_decay", (0.6, 7, 0.5)),
    ):
        make = NAMES[name]
        equal(make(*arguments).staircase(7), make(*arguments, staircase=True))


def test_chebyshev_steps_are_the_best_for_a_quadratic(x64: None):
    """After n steps, no curvature in [m, M] leaves more than 1 / T_n((M + m) / (M - m)); in order, it stays bounded."""
    n, low, high = 64, 0.01, 1.0
    rate = chebyshev_schedule(n, low, high)
    curvatures = np.linspace(low, high, 2001)
    factors = 1 - curvatures[:, None] * np.asarray(rate(jnp.arange(n)))
    left = np.abs(np.prod(factors, axis=1)).max()
    np.testing.assert_allclose(left, 1 / np.cosh(n * np.arccosh((high + low) / (high - low))), rtol=1e-9)
    sorted_factors = factors[:, np.argsort(rate(jnp.arange(n)))[::-1]]
    assert np.abs(np.cumprod(factors, axis=1)).max() < 1e3 < np.abs(np.cumprod(sorted_factors, axis=1)).max()


def test_epochs():
    assert (at(30, 391), at(0.5, 391), at(0.1, 30), at(0, 7)) == (11730, 196, 3, 0)
    assert at(jnp.asarray(1.5), 10) == 15
    rate = piecewise_values_schedule([at(1, 10), at(3, 10)], [1.0, 0.5, 0.1])
    np.testing.assert_allclose(rate(jnp.asarray([9, 10, 29, 30])), [1, 0.5, 0.5, 0.1], rtol=1e-6)
    for steps in (41, 49, 391):
        epoch = jax.jit(piecewise_values_schedule([1, 2], [1.0, 0.5, 0.1]).stretch(steps).__call__)
        found = epoch(jnp.asarray([0, steps - 1, steps, 2 * steps - 1, 2 * steps]))
        np.testing.assert_array_equal(found, np.float32([1, 1, 0.5, 0.5, 0.1]))


# Decided at run time.


def test_a_run_starts_its_decay_when_it_decides_to():
    """The start is part of what the loop carries: infinite until a flag is raised, here by the loss, for good."""
    rate = 0.1 * warmup(5).then(constant())

    def step(carry, flag):
        count, start = carry
        start = jnp.where(flag & jnp.isinf(start), count.astype(float), start)
        value = (rate * linear(10).shift(start))(count)
        return (count + 1, start), value

    flags = jnp.arange(40) == 17
    (_, start), values = jax.jit(lambda: jax.lax.scan(step, (jnp.int32(0), jnp.float32(jnp.inf)), flags))()
    assert start == 17
    t = np.arange(40)
    expected = 0.1 * np.minimum(t / 5, 1) * np.clip(1 - (t - 17) / 10, 0, 1)
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-8)


def test_a_run_stops_anywhere():
    """What the budget leaves is known anew at each step: the cooldown ends with it."""
    left = jnp.asarray([jnp.inf, jnp.inf, 20.0, 12.0, 8.0, 7.0, 3.0, 5.0, 0.0])

    @jax.jit
    def value(count, remaining):
        return (0.1 * constant() * linear(10).until(count + remaining))(count)

    found = [value(t, r) for t, r in enumerate(left)]
    np.testing.assert_allclose(found, 0.1 * np.minimum(1, np.asarray(left) / 10), rtol=1e-6)


def test_another_start_does_not_compile_again():
    traces = []
    params = jnp.ones(3)

    @jax.jit
    def step(tx, state, params):
        traces.append(tx)
        return tx.update(jnp.ones(3), state, params)

    for start in (jnp.inf, 4.0, 7.0):
        tx = gradtx.sgd(0.5 * linear(10).shift(start))
        state = tx.init(params)
        for t in range(9):
            updates, state = step(tx, state, params)
            np.testing.assert_allclose(updates, -0.5 * min(1, 1 - (t - start) / 10), rtol=1e-6)
    assert len(traces) == 1


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.0, 3.0, 30.0, jnp.inf, -jnp.inf])
def test_derivatives_are_finite_wherever_it_starts(start: float):
    for piece in (linear(10), one_minus_sqrt(10), rex(10), cosine(10)):
        for make in (piece.shift, piece.until):
            for t in (0.0, 3.0, 13.0, 100.0):
                value, slope = jax.value_and_grad(lambda s, make=make, t=t: make(s)(t))(start)
                assert np.isfinite(value) and np.isfinite(slope)


# Whole numbers beyond 2**24, which float32 cannot tell apart.


@pytest.mark.slow
@pytest.mark.parametrize("begin", [2**24 + 1, 2**30 + 1])
def test_large_counts_are_exact(begin: int):
    counts = begin + jnp.arange(-2, 9)
    own = np.asarray(linear(7)(jnp.maximum(jnp.arange(-2, 9), 0)))
    for value in (
        linear(7).shift(begin),
        linear(7).until(begin + 7),
        constant(begin).then(linear(7)),
        gradtx.join_schedules([constant(), linear(7)], [begin]),
        constant().then(linear(7), after=begin),
        wsd_schedule(0.0, 1.0, 1001, begin - 1001, 7),
    ):
        for run in (value, jax.jit(value.__call__), jax.jit(lambda t, value=value: value(t))):
            np.testing.assert_array_equal(run(counts), own)
        np.testing.assert_array_equal(jax.jit(lambda v, t: v(t))(value, counts), own)
    period = 1000
    wave, cycle = warmup(10).then(linear(period - 10)).repeat(), (begin // period) * period
    np.testing.assert_array_equal(wave(cycle + jnp.arange(30)), wave(jnp.arange(30)))
    stairs = linear(2**31 - 1).staircase(period)(cycle + jnp.arange(period))
    assert (stairs == stairs[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("period", "growth"), [(1000, 2), (7, 3), (13, 2.0)])
def test_growing_cycles_begin_where_they_should(period: int, growth: float):
    """Also compiled, in float32 and with traced numbers: one step early or late would be at the other end."""
    begins = [0]
    while begins[-1] < 2**22:
        begins.append(begins[-1] + period * int(growth) ** (len(begins) - 1))
    value = linear(period).repeat(growth=growth)
    for run in (value, jax.jit(value.__call__), lambda t: jax.jit(lambda v, t: v(t))(value, t)):
        np.testing.assert_array_equal(run(jnp.asarray(begins)), 1.0)
        assert (np.asarray(run(jnp.asarray(begins[1:]) - 1)) < 0.2).all()


def test_the_largest_count_does_not_overflow():
    last = jnp.int32(2**31 - 1)
    for value in (linear(10).shift(-5), linear(10).until(5), linear(10).repeat(3), warmup(10).shift(-(2**20))):
        assert value(last) == value(1000)
    assert linear(300)(jnp.int8(100)) == linear(300)(100)
