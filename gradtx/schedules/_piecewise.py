# SPDX-License-Identifier: Apache-2.0
"""A constant, and different constants between boundaries (manual decay)."""

import itertools
import math
import operator
from collections.abc import Mapping, Sequence

from gradtx.core._ranges import Range, Real
from gradtx.core._types import Numeric, ScheduleFn
from gradtx.schedules._checks import check_boundaries, check_list, check_number, check_scales
from gradtx.schedules._curves import lookup
from gradtx.schedules._schedule import composition
from gradtx.schedules._steps import in_floats


@composition
def constant_schedule(value: Real) -> ScheduleFn:
    """The same value at every step.

    Args:
      value: any number.
    """

    def at(count):
        return lookup(count, (), (value,))

    return at


@composition
def piecewise_values_schedule(boundaries: Sequence[Numeric], values: Sequence[Numeric]) -> ScheduleFn:
    """Manual decay: a list of values, each until the next boundary.

    ```
    values[i] for boundaries[i-1] <= t < boundaries[i]
    ```

    Args:
      boundaries: the steps from which on the next value holds, strictly increasing; updates, not epochs (see `at`).
      values: one value more than there are boundaries.

    Raises:
      ValueError: for boundaries that do not strictly increase, or another number of values.
    """
    name = "piecewise_values_schedule"
    steps, levels = check_boundaries(name, boundaries), check_list(name, "values", values)
    if len(levels) != len(steps) + 1:
        raise ValueError(
            f"{name}: values must have one element more than boundaries, {len(steps) + 1}, got {len(levels)}: {values}"
        )
    for i, level in enumerate(levels):
        check_number(name, f"values[{i}]", level, Range())

    def at(count):
        return lookup(count, steps, levels)

    return at


@composition
def piecewise_constant_schedule(
    init_value: Real, boundaries_and_scales: Mapping[Numeric, Numeric] | None = None
) -> ScheduleFn:
    """Manual decay by factors: at each boundary the value is multiplied by a scale.

    ```
    init_value * product of the scales whose boundary <= t
    ```

    Args:
      boundaries_and_scales: a dictionary from steps to scales; None for a constant.

    Raises:
      ValueError: for a negative scale.
    """
    boundaries, scales = check_scales("piecewise_constant_schedule", boundaries_and_scales, first=-math.inf)

    def at(count):
        levels = itertools.accumulate(in_floats(count, init_value, *scales), operator.mul)
        return lookup(count, boundaries, tuple(levels))

    return at
