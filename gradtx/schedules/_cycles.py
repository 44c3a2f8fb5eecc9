# SPDX-License-Identifier: Apache-2.0
"""Cycles, each `growth` times as long as the one before: the step at which one begins, and the cycle of a step."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._ranges import is_number
from gradtx.schedules._steps import alike, counted, floating


def cycle_begin(cycle: Any, period: Any, growth: Any) -> Any:
    """The step at which a cycle (from 0) begins: period * (1 + growth + ... + growth ** (cycle - 1)).

    Python numbers give a Python number.
    """
    if is_number(cycle) and is_number(period) and is_number(growth):
        return sum(period * growth**i for i in range(int(cycle)))
    cycle, growth, period = alike(floating(counted(cycle)), growth, period)
    if is_number(growth) and growth > 1.0:
        begin = period * (_power_minus_one(growth, cycle) / (growth - 1.0))
        whole = is_number(period) and period.is_integer() and growth.is_integer()
        return jnp.round(begin) if whole else begin
    growth = jnp.asarray(growth, cycle.dtype)
    above = jnp.where(growth > 1, growth, 2.0)
    # Where the cycles do not grow, the second term is 0; it is there for the derivative.
    same = cycle + (growth - 1.0) * cycle * (cycle - 1.0) / 2.0
    return period * jnp.where(growth > 1, _power_minus_one(above, cycle) / (above - 1.0), same)


def _power_minus_one(base: Any, exponent: jax.Array) -> jax.Array:
    """base ** exponent - 1 for a base above 1, exact for whole numbers and without cancellation for bases near 1."""
    base = jnp.asarray(base, exponent.dtype)
    return jnp.where(base < 1.5, jnp.expm1(exponent * jnp.log1p(base - 1.0)), base**exponent - 1.0)


def cycle_at(t: jax.Array, period: Any, growth: Any) -> jax.Array:
    """The number of the cycle in which step `t` lies, with derivative 0."""
    rate, length = (jnp.asarray(x, t.dtype) for x in (growth, period))
    above = jnp.where(rate > 1, rate, 2.0)
    logarithm = jnp.log1p(t / length * (above - 1.0)) / jnp.log(above)
    cycle = jnp.maximum(jnp.floor(jnp.where(rate > 1, logarithm, t / length)), 0.0)
    # Near the edges of a cycle, rounding may make the number one too low or too high.
    cycle = jnp.where(t >= cycle_begin(cycle + 1.0, period, growth), cycle + 1.0, cycle)
    cycle = jnp.where(t < cycle_begin(cycle, period, growth), cycle - 1.0, cycle)
    return jax.lax.stop_gradient(jnp.maximum(cycle, 0.0))
