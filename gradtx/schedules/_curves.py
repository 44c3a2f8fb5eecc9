# SPDX-License-Identifier: Apache-2.0
"""The curves of which schedules are made: functions of a count and of numbers, all of which may be traced.

All are safe to differentiate: a branch that is not taken is evaluated at a point where its derivative is finite.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._ranges import is_number
from gradtx.schedules._steps import floating, in_floats, paired, reached


def progress(t: jax.Array, steps: Any) -> tuple[jax.Array, jax.Array]:
    """The fraction of the steps that is done and the fraction that is left, each computed without subtraction from 1.

    They are exactly 1 and 0 from the last step on, also for zero steps.
    """
    t, steps = paired(t, steps)
    done = t >= steps
    # Selecting the divisor also keeps XLA from multiplying by its reciprocal, where 49 * (1/49) < 1.
    divisor = floating(jnp.where(done, jnp.ones([], t.dtype), steps))
    return jnp.where(done, 1.0, floating(t) / divisor), jnp.where(done, 0.0, floating(steps - t) / divisor)


def periods(t: jax.Array, steps: Any, staircase: bool) -> jax.Array:
    """t / steps, rounded down for a staircase."""
    # Not floor(t / steps): compiled, that quotient falls below the whole number at some multiples of the steps.
    t, steps = paired(t, steps)
    return floating(jnp.floor_divide(t, steps)) if staircase else floating(t) / floating(steps)


def raised(base: jax.Array, exponent: Any) -> jax.Array:
    """`base ** exponent` for a base in [0, 1] and an exponent >= 0; its derivative at base 0 is 0, never infinite."""
    positive = base > 0
    return jnp.where(positive, jnp.where(positive, base, 1.0) ** exponent, jnp.where(exponent > 0, 0.0, 1.0))


def linear(t: jax.Array, start: Any, end: Any, steps: Any) -> jax.Array:
    """From start to end in a straight line, then constant."""
    done, left = progress(t, steps)
    return start * left + end * done


def cosine(t: jax.Array, start: Any, end: Any, steps: Any, exponent: Any = 1.0) -> jax.Array:
    """From start to end along ((1 + cos(pi t / steps)) / 2) ** exponent, then constant."""
    # (1 + cos(pi - y)) / 2 is sin(y / 2) ** 2, which does not cancel near the end.
    rest = raised(jnp.sin(0.5 * math.pi * progress(t, steps)[1]), 2.0 * exponent)
    return start * rest + end * (1.0 - rest)


def one_minus_sqrt(t: jax.Array, start: Any, end: Any, steps: Any) -> jax.Array:
    """From start to end along 1 - sqrt(t / steps), then constant."""
    done, left = progress(t, steps)
    rest = left / (1.0 + raised(done, 0.5))  # does not cancel near the end
    return start * rest + end * (1.0 - rest)


def one_minus_square(t: jax.Array, start: Any, end: Any, steps: Any) -> jax.Array:
    """From start to end along 1 - (t / steps) ** 2, then constant."""
    done, left = progress(t, steps)
    return start * (left * (1.0 + done)) + end * done**2


def rex(t: jax.Array, start: Any, end: Any, steps: Any) -> jax.Array:
    """From start to end along (1 - p) / (1 - p / 2) with p = t / steps, then constant."""
    done, left = progress(t, steps)
    return (start * (2.0 * left) + end * done) / (1.0 + left)


DECAYS = {
    "linear": linear,
    "cosine": cosine,
    "1-sqrt": one_minus_sqrt,
    "1-square": one_minus_square,
    "rex": rex,
}


def exponential(t: jax.Array, start: Any, end: Any, steps: Any, rate: Any, staircase: bool) -> jax.Array:
    """start * rate ** (t / steps), bounded by `end`: from below for a rate < 1, else from above; None for no bound.

    Constant for 0 steps or fewer and for a rate of 0.
    """
    moves = (steps > 0) & (rate != 0)
    if not isinstance(moves, bool | np.bool_):
        steps, rate = jnp.where(moves, steps, jnp.ones_like(steps)), jnp.where(moves, rate, jnp.ones_like(rate))
    elif not moves:
        return jnp.full_like(floating(t), start)
    log_rate = math.log(rate) if is_number(rate) else jnp.log(rate)
    exponent = log_rate * periods(t, steps, staircase)
    value = start * jnp.exp(exponent)
    if end is None:
        return value
    within = jnp.where(rate < 1.0, value > end, value < end) | ~jnp.asarray(moves)
    # Beyond the end the exponential may overflow; its derivative must be 0 there, not 0 * inf.
    return jnp.where(within, start * jnp.exp(jnp.where(within, exponent, 0.0)), end)


def lookup(count: jax.Array, boundaries: Sequence, values: Sequence) -> jax.Array:
    """values[i] for boundaries[i-1] <= count < boundaries[i]."""
    first, *others = in_floats(count, *values)
    result = jnp.full_like(floating(count), first)
    for boundary, value in zip(boundaries, others, strict=True):
        result = jnp.where(reached(count, boundary), value, result)
    return result
