# SPDX-License-Identifier: Apache-2.0
"""Schedules that begin with a linear warm-up."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import jax
import numpy as np

from gradtx.core._ranges import Bound, Limit, LimitOrZero, NonNegative, Real
from gradtx.core._types import ScheduleFn
from gradtx.schedules._checks import check_list, known
from gradtx.schedules._curves import cosine, exponential, linear
from gradtx.schedules._schedule import Lasting, composition
from gradtx.schedules._steps import between, in_floats, joined, longest, since, total


def _warmed(count: jax.Array, start: Any, peak: Any, steps: Any, after: Callable) -> jax.Array:
    return joined(count, (lambda t: linear(t, start, peak, steps), after), (steps,))


@composition
def warmup_constant_schedule(init_value: Real, peak_value: Real, warmup_steps: LimitOrZero) -> ScheduleFn:
    """Linear warm-up, then constant.

    ```
    init_value + (peak_value - init_value) * min(t / warmup_steps, 1)
    ```

    Args:
      peak_value: the value after the warm-up.
      warmup_steps: the number of updates in the warm-up; 0 for none.
    """

    def at(count):
        start, peak = in_floats(count, init_value, peak_value)
        return linear(since(count, 0), start, peak, warmup_steps)

    return at


@composition
def warmup_cosine_decay_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: LimitOrZero,
    decay_steps: Limit,
    end_value: Real = 0.0,
    exponent: NonNegative = 1.0,
) -> ScheduleFn:
    """Linear warm-up to the peak, then cosine decay to `end_value`.

    ```
    W = warmup_steps, c = ((1 + cos(pi * (t - W) / (decay_steps - W))) / 2) ** exponent
    end_value + (peak_value - end_value) * c for W <= t <= decay_steps
    ```

    Args:
      peak_value: the value at the end of the warm-up.
      warmup_steps: the number of updates in the warm-up; 0 for none.
      decay_steps: the number of updates in the whole schedule, including the warm-up.
      exponent: the power of the cosine; 1 for the usual cosine decay, larger ones decay faster at first.

    Raises:
      ValueError: for `decay_steps` <= `warmup_steps`.
    """
    if known(warmup_steps, decay_steps) and np.any(np.asarray(decay_steps) <= np.asarray(warmup_steps)):
        raise ValueError(
            f"warmup_cosine_decay_schedule: decay_steps counts the warm-up too and must be greater than "
            f"warmup_steps = {warmup_steps}, got {decay_steps}"
        )

    def at(count):
        start, peak, end, p = in_floats(count, init_value, peak_value, end_value, exponent)
        steps = between(warmup_steps, decay_steps)
        return _warmed(count, start, peak, warmup_steps, lambda t: cosine(t, peak, end, steps, p))

    return Lasting(at, decay_steps)


@composition
def warmup_exponential_decay_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: LimitOrZero,
    transition_steps: Bound,
    decay_rate: NonNegative,
    transition_begin: Bound = 0,
    staircase: bool = False,
    end_value: Real | None = None,
) -> ScheduleFn:
    """Linear warm-up to the peak, then `exponential_decay` from there, with t counted from the end of the warm-up.

    Args:
      peak_value: the value at the end of the warm-up.
      warmup_steps: the number of updates in the warm-up; 0 for none.
      transition_steps: 0 or less for a constant after the warm-up, as in Optax.
      decay_rate: the factor by which the value changes every `transition_steps`: below 1 for decay, above 1 for growth;
        0 for a constant, as in Optax.
      transition_begin: the number of updates between the warm-up and the decay; a negative one counts as 0.
      staircase: whether to decay in steps, every `transition_steps`, instead of smoothly.
      end_value: the smallest value if `decay_rate` is below 1, else the largest; None for no bound.
    """
    begin = longest(0, transition_begin)

    def at(count):
        start, peak, rate, end = in_floats(count, init_value, peak_value, decay_rate, end_value)

        def after(t):
            return exponential(since(t, begin), peak, end, transition_steps, rate, staircase)

        return _warmed(count, start, peak, warmup_steps, after)

    return at


@composition
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> ScheduleFn:
    """Warm restarts: several `warmup_cosine_decay_schedule`s, each beginning where the one before it ends.

    Args:
      cosine_kwargs: a list of dictionaries, the arguments of each `warmup_cosine_decay_schedule`. After the last one,
        its final value stays.

    Reference: Loshchilov and Hutter, arXiv 1608.03983
    """
    cycles = check_list("sgdr_schedule", "cosine_kwargs", cosine_kwargs)
    if not cycles or not all(isinstance(x, Mapping) for x in cycles):
        raise TypeError(
            f"sgdr_schedule: cosine_kwargs must be dicts of arguments of warmup_cosine_decay_schedule, at least one, "
            f"got {cosine_kwargs!r}"
        )
    curves = tuple(warmup_cosine_decay_schedule(**x) for x in cycles)

    ends = tuple(accumulate((x.length for x in curves), total))
    return Lasting(lambda count: joined(count, curves, ends[:-1]), ends[-1])
