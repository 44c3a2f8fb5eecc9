# SPDX-License-Identifier: Apache-2.0
"""From one value to another along a line or a polynomial, then constant."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._ranges import Bound, NonNegative, Real
from gradtx.core._types import ScheduleFn
from gradtx.schedules._curves import linear, progress, raised
from gradtx.schedules._schedule import Lasting, composition
from gradtx.schedules._steps import in_floats, longest, paired, since, total


@composition
def linear_schedule(
    init_value: Real, end_value: Real, transition_steps: Bound, transition_begin: Bound = 0
) -> ScheduleFn:
    """Linear decay (or warm-up) over tau steps, then constant.

    ```
    tau = transition_steps, t counted from transition_begin
    (1 - t/tau) init_value + (t/tau) end_value for t <= tau, end_value after
    ```

    Args:
      transition_steps: tau; 0 or less for the constant `init_value`, as in Optax.
      transition_begin: the number of updates before the decay begins; a negative one counts as 0.
    """
    begin = longest(0, transition_begin)

    def at(count):
        start, end = in_floats(count, init_value, end_value)
        return _if_moving(linear(since(count, begin), start, end, transition_steps), start, transition_steps)

    return Lasting(at, total(begin, longest(0, transition_steps)))


@composition
def polynomial_schedule(
    init_value: Real,
    end_value: Real,
    power: NonNegative,
    transition_steps: Bound,
    transition_begin: Bound = 0,
    *,
    cycle: bool = False,
) -> ScheduleFn:
    """Polynomial decay to an end value.

    ```
    T = transition_steps, t = min(step - transition_begin, T)
    (init_value - end_value) * (1 - t/T) ** power + end_value
    ```

    Args:
      power: the exponent; 1 for linear decay, larger ones decay faster at first.
      transition_steps: T; 0 or less for the constant `init_value`, as in Optax.
      transition_begin: the number of updates before the decay begins; a negative one counts as 0.
      cycle: whether the decay starts over at each multiple of T, from lower values and more slowly: t is not bounded,
        and T becomes T * max(ceil(t/T), 1).
    """
    begin = longest(0, transition_begin)

    def at(count):
        start, end, exponent = in_floats(count, init_value, end_value, power)
        t, steps = paired(since(count, begin), transition_steps)
        steps = jnp.where(steps > 0, steps, jnp.ones([], t.dtype))
        horizon = steps * jnp.maximum(-jnp.floor_divide(-t, steps), jnp.ones([], t.dtype)) if cycle else steps
        rest = raised(progress(t, horizon)[1], exponent)
        return _if_moving(start * rest + end * (1.0 - rest), start, transition_steps)

    return at if cycle else Lasting(at, total(begin, longest(0, transition_steps)))


def _if_moving(value: jax.Array, start: Any, steps: Any) -> jax.Array:
    """The value, or the first one where there are no steps to go."""
    return jnp.where(jnp.asarray(steps) > 0, value, start)
