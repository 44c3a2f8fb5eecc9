# SPDX-License-Identifier: Apache-2.0
"""What single schedules are careful about, and where they are not as in optax on purpose."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax.schedules
import pytest

import gradtx
from gradtx.schedules._schedule import Schedule, schedule


def test_arguments_of_other_dtypes(x64: None):
    value = gradtx.linear_schedule(jnp.float32(1.0), np.float64(0.1), jnp.int32(10), np.int64(3))
    assert value(jnp.int32(5)).dtype == jnp.float64
    assert value(jnp.float32(5)).dtype == jnp.float32
    np.testing.assert_allclose(value(5), 0.82, 1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: gradtx.linear_schedule(x, 0.0, 10),
        lambda x: gradtx.warmup_cosine_decay_schedule(0.0, x, 5, 10),
        lambda x: gradtx.piecewise_constant_schedule(x, {3: 0.5}),
        lambda x: gradtx.join_schedules([gradtx.constant_schedule(x), gradtx.constant_schedule(1.0)], [3]),
    ],
)
def test_new_numbers_do_not_compile_again(make: Callable[[float], Schedule]):
    traces = []

    @jax.jit
    def run(value: Schedule, count: int) -> jax.Array:
        traces.append(value)
        return value(count)

    for x in (0.1, 0.2, 0.3):
        np.testing.assert_allclose(run(make(x), 2), float(make(x)(2)), 1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("steps", [3, 41, 49, 55, 1000])
def test_staircases_step_at_every_multiple(steps: int):
    """Compiled, a quotient by a constant is a product with its reciprocal, which is too small at 41 * 41."""
    k = jnp.arange(1, 2000)
    for t, height in ((k * steps, k), (k * steps - 1, k - 1)):
        np.testing.assert_allclose(
            jax.jit(gradtx.step_decay_schedule(1.0, steps).__call__)(t), 1 / (1 + np.asarray(height)), 1e-6
        )


@pytest.mark.parametrize("steps", [3, 41, 49, 1000])
def test_both_ends_are_exact(steps: int):
    for value in (
        gradtx.linear_schedule(1e-9, 0.3, steps),
        gradtx.polynomial_schedule(1e-9, 0.3, 2.0, steps),
        gradtx.warmup_constant_schedule(1e-9, 0.3, steps),
        gradtx.warmup_cosine_decay_schedule(1e-9, 0.5, steps, 2 * steps, 0.3),
    ):
        assert jax.jit(value.__call__)(0) == jnp.float32(1e-9)
        assert jax.jit(value.__call__)(2 * steps) == jnp.float32(0.3)


def test_numbers_are_folded_in_double_precision():
    """The logarithm of a rate near 1 is lost when the rate is rounded to float32 first."""
    rate = 1 - 1e-6
    np.testing.assert_allclose(gradtx.exponential_decay(1.0, 1, rate)(10**6), rate**10**6, 1e-6)


def test_a_curve_is_not_differentiated_outside_its_own_steps():
    @schedule
    def falling(steps: float):
        return lambda t: jnp.sqrt(1 - t / steps)

    value = gradtx.join_schedules([falling(4), falling(9), gradtx.constant_schedule(0.5)], [4, 13])
    assert all(np.isfinite(jax.grad(value)(float(t))) for t in range(20))


@pytest.mark.parametrize(
    ("name", "arguments", "count", "ours", "theirs"),
    [
        ("warmup_constant_schedule", (0.1, 1.0, 0), 7, 1.0, 0.1),  # optax never warms up in zero steps
        ("warmup_cosine_decay_schedule", (0.1, 0.0, 5, 10, 0.2), 10, 0.2, 0.0),  # nor leaves a peak of 0
        ("linear_schedule", (1e-9, 1.0, 10), 0, 1e-9, 0.0),  # (init - end) + end
        ("linear_onecycle_schedule", (1, 1.0), 1, 4e-6, 1.6e-7),  # two factors for one step, of which a dict keeps one
        ("constant_schedule", (1,), 0, np.float32(1), np.int32(1)),
    ],
)
def test_where_optax_is_not_followed(
    name: str, arguments: tuple, count: int, ours: float, theirs: float, standard_promotion: None
):
    for module, expected in (gradtx, ours), (optax.schedules, theirs):
        value = getattr(module, name)(*arguments)(count)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert isinstance(expected, float) or jnp.result_type(value) == expected.dtype
