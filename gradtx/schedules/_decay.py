# SPDX-License-Identifier: Apache-2.0
"""Decays without an end: inverse time, exponential and natural exponential, smooth or by steps."""

import jax.numpy as jnp

from gradtx.core._ranges import NonNegative, Positive, Real
from gradtx.core._types import ScheduleFn
from gradtx.schedules._curves import exponential, periods
from gradtx.schedules._schedule import schedule
from gradtx.schedules._steps import alike, since


@schedule
def inverse_time_decay(
    init_value: Real, transition_steps: Positive, decay_rate: NonNegative, *, staircase: bool = False
) -> ScheduleFn:
    """Decay by the reciprocal of the time.

    ```
    init_value / (1 + decay_rate * t / transition_steps)
    staircase: floor(t / transition_steps) in place of t / transition_steps
    ```
    """

    def at(count):
        count, start, steps, rate = alike(count, init_value, transition_steps, decay_rate)
        return start / (1.0 + rate * periods(since(count, 0.0), steps, staircase))

    return at


@schedule
def step_decay_schedule(init_value: Real, drop_steps: Positive) -> ScheduleFn:
    """Step decay: a half, a third, a fourth, ... of the initial value, each for `drop_steps` steps.

    ```
    init_value / floor(t / drop_steps + 1)
    ```
    """

    def at(count):
        count, start, steps = alike(count, init_value, drop_steps)
        return start / (1.0 + periods(since(count, 0.0), steps, staircase=True))

    return at


@schedule
def exponential_decay(
    init_value: Real,
    transition_steps: Positive,
    decay_rate: Positive,
    transition_begin: NonNegative = 0,
    staircase: bool = False,
    end_value: Real | None = None,
) -> ScheduleFn:
    """Decay (or for a rate above 1 growth) by the factor `decay_rate` in every `transition_steps`.

    ```
    init_value * decay_rate ** (max(t - transition_begin, 0) / transition_steps)
    staircase: the exponent is rounded down
    ```

    `end_value` is the lowest value for a `decay_rate` below 1, the highest for any other.
    """

    def at(count):
        numbers = init_value, transition_steps, decay_rate, transition_begin, end_value
        count, start, steps, rate, begin, end = alike(count, *numbers)
        return exponential(since(count, begin), start, end, steps, rate, staircase)

    return at


@schedule
def natural_exponential_decay(
    init_value: Real, transition_steps: Positive, decay_rate: NonNegative, *, staircase: bool = False
) -> ScheduleFn:
    """Exponential decay with base e.

    ```
    init_value * exp(-decay_rate * t / transition_steps)
    staircase: floor(t / transition_steps) in place of t / transition_steps
    ```
    """

    def at(count):
        count, start, steps, rate = alike(count, init_value, transition_steps, decay_rate)
        return start * jnp.exp(-rate * periods(since(count, 0.0), steps, staircase))

    return at
