# SPDX-License-Identifier: Apache-2.0
"""Warm-up, stable, decay."""

from collections.abc import Callable
from typing import Any, Literal

from gradtx.core._ranges import Limit, LimitOrZero, Real
from gradtx.core._types import ScheduleFn
from gradtx.schedules._curves import DECAYS
from gradtx.schedules._schedule import Lasting, composition
from gradtx.schedules._steps import in_floats, joined, since, total


@composition
def wsd_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: LimitOrZero,
    stable_steps: LimitOrZero,
    decay_steps: Limit,
    end_value: Real = 0.0,
    shape: Literal["linear", "cosine", "1-sqrt", "1-square", "rex"] = "linear",
) -> ScheduleFn:
    """Warm-up, stable, decay: linear warm-up to the peak, the peak for a while, then a cooldown to `end_value`.

    ```
    init_value to peak_value in warmup_steps, peak_value for stable_steps,
    end_value + (peak_value - end_value) * w(p) for the fraction p of decay_steps
    w: 1 - p, (1 + cos(pi p)) / 2, 1 - sqrt(p), 1 - p^2 or (1 - p) / (1 - p / 2)
    ```

    For several cycles, each with a warm-up: `wsd_schedule(...).repeat(3)`. To decide at run time when the decay begins:
    `peak_value * warmup(1000).then(constant()) * linear(1000).shift(start)`.

    Args:
      peak_value: the value after the warm-up.
      warmup_steps, stable_steps, decay_steps: the number of updates in each of the three phases.
      shape: the curve w of the decay, in the order of the formulas above.

    Reference: Hu et al. 2024, arXiv:2404.06395; the shapes: Hägele et al. 2024, arXiv:2405.18392.
    """

    def curve(shape: str, start: Any, end: Any, steps: Any, begin: Any = 0) -> Callable[..., Any]:
        return lambda t: DECAYS[shape](since(t, begin), *in_floats(t, start, end), steps)

    pieces = (
        curve("linear", init_value, peak_value, warmup_steps),
        curve(shape, peak_value, end_value, decay_steps, begin=stable_steps),
    )

    def at(count):
        return joined(count, pieces, (warmup_steps,))

    return Lasting(at, total(warmup_steps, stable_steps, decay_steps))
