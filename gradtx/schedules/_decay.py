# SPDX-License-Identifier: Apache-2.0
"""Decays without an end: inverse time, exponential and natural exponential, smooth or in steps."""

import jax.numpy as jnp

from gradtx.core._ranges import Bound, Limit, NonNegative, Real
from gradtx.core._types import ScheduleFn
from gradtx.schedules._curves import exponential, periods
from gradtx.schedules._schedule import composition
from gradtx.schedules._steps import in_floats, longest, since


@composition
def inverse_time_decay(
    init_value: Real, transition_steps: Limit, decay_rate: NonNegative, *, staircase: bool = False
) -> ScheduleFn:
    """Decay with the reciprocal of the step.

    ```
    init_value / (1 + decay_rate * t / transition_steps)
    staircase: floor(t / transition_steps) in place of t / transition_steps
    ```

    Args:
      decay_rate: with 1, the value is half of the initial one after `transition_steps`; 0 for no decay.
      staircase: whether to decay in steps, every `transition_steps`, instead of smoothly.
    """

    def at(count):
        start, rate = in_floats(count, init_value, decay_rate)
        return start / (1.0 + rate * periods(since(count, 0), transition_steps, staircase))

    return at


@composition
def step_decay_schedule(init_value: Real, drop_steps: Limit) -> ScheduleFn:
    """Step decay: a half, a third, a fourth, ... of the initial value, each for `drop_steps` steps.

    ```
    init_value / floor(t / drop_steps + 1)
    ```

    Args:
      drop_steps: the number of updates from one drop to the next.
    """

    def at(count):
        (start,) = in_floats(count, init_value)
        return start / (1.0 + periods(since(count, 0), drop_steps, staircase=True))

    return at


@composition
def exponential_decay(
    init_value: Real,
    transition_steps: Bound,
    decay_rate: NonNegative,
    transition_begin: Bound = 0,
    staircase: bool = False,
    end_value: Real | None = None,
) -> ScheduleFn:
    """Exponential decay, or growth: multiplies the value by `decay_rate` every `transition_steps`.

    ```
    init_value * decay_rate ** (max(t - transition_begin, 0) / transition_steps)
    staircase: the exponent is rounded down
    ```

    Args:
      transition_steps: 0 or less for the constant `init_value`, as in Optax.
      decay_rate: below 1 for decay, above 1 for growth; 0 for the constant `init_value`, as in Optax.
      transition_begin: the number of updates before the decay begins; a negative one counts as 0.
      staircase: whether to decay in steps, every `transition_steps`, instead of smoothly.
      end_value: the smallest value if `decay_rate` is below 1, else the largest; None for no bound.
    """
    begin = longest(0, transition_begin)

    def at(count):
        start, rate, end = in_floats(count, init_value, decay_rate, end_value)
        return exponential(since(count, begin), start, end, transition_steps, rate, staircase)

    return at


@composition
def natural_exponential_decay(
    init_value: Real, transition_steps: Limit, decay_rate: NonNegative, *, staircase: bool = False
) -> ScheduleFn:
    """Exponential decay with base e.

    ```
    init_value * exp(-decay_rate * t / transition_steps)
    staircase: floor(t / transition_steps) in place of t / transition_steps
    ```

    Args:
      decay_rate: with 1, the value falls to 1 / e in `transition_steps`; 0 for no decay.
      staircase: whether to decay in steps, every `transition_steps`, instead of smoothly.
    """

    def at(count):
        start, rate = in_floats(count, init_value, decay_rate)
        return start * jnp.exp(-rate * periods(since(count, 0), transition_steps, staircase))

    return at
