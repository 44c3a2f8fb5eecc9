# SPDX-License-Identifier: Apache-2.0
"""Schedules one after another."""

from collections.abc import Sequence

from gradtx.core._types import Numeric, ScheduleFn
from gradtx.schedules._checks import check_boundaries, check_list
from gradtx.schedules._schedule import Lasting, composition
from gradtx.schedules._steps import joined, total


@composition
def join_schedules(schedules: Sequence[ScheduleFn], boundaries: Sequence[Numeric]) -> ScheduleFn:
    """Schedules one after another, each of which counts from its own start.

    ```
    schedules[i](t - boundaries[i-1]) for boundaries[i-1] <= t < boundaries[i]
    ```

    Args:
      schedules: any functions of the step, one more than there are boundaries.
      boundaries: the steps at which the next schedule begins, in order. If two are equal, the schedule between them is
        left out.

    Raises:
      ValueError: for boundaries that decrease, or another number of schedules.
    """
    name = "join_schedules"
    curves, steps = check_list(name, "schedules", schedules), check_boundaries(name, boundaries, strictly=False)
    for i, curve in enumerate(curves):
        if not callable(curve):
            raise TypeError(
                f"{name}: schedules[{i}] must be a function of the step, such as constant_schedule(0.1), got {curve!r}"
            )
    if len(curves) != len(steps) + 1:
        raise ValueError(
            f"{name}: schedules must have one element more than boundaries, {len(steps) + 1}, got {len(curves)}"
        )

    def at(count):
        return joined(count, curves, steps)

    return Lasting(at, total(*steps[-1:], getattr(curves[-1], "length", None)))
