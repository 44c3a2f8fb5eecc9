# SPDX-License-Identifier: Apache-2.0
"""Cyclic schedules: triangles that repeat."""

from typing import Literal

from gradtx.core._ranges import LimitOrZero, Positive, Real, is_number
from gradtx.core._types import ScheduleFn
from gradtx.schedules._decay import exponential_decay
from gradtx.schedules._pieces import linear, warmup
from gradtx.schedules._schedule import composition


@composition
def cyclic_schedule(
    init_value: Real,
    peak_value: Real,
    up_steps: LimitOrZero,
    down_steps: LimitOrZero | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: Positive = 1.0,
) -> ScheduleFn:
    """Repeats linear growth from `init_value` to the peak and linear decay back, without an end.

    ```
    init_value + (peak_value - init_value) * triangle(t) * h
    h = 1, 1/2 ** (whole cycles before t) for triangular2, or gamma ** t for exp_range
    ```

    Args:
      peak_value: the value at the top of the first triangle.
      up_steps: the number of updates from the bottom to the top; 0 to begin each cycle at the top.
      down_steps: the number of updates back to the bottom; None for as many as `up_steps`.
      mode: "triangular" for triangles of equal height, "triangular2" or "exp_range" for decreasing ones, as above.
      gamma: the factor of the height at each step of "exp_range"; other modes do not use it.

    Reference: Smith 2015, arXiv:1506.01186.
    """
    if is_number(up_steps) and up_steps == 0 and (down_steps is None or is_number(down_steps) and down_steps == 0):
        raise ValueError("cyclic_schedule: up_steps and down_steps must not both be 0, got a cycle of no steps")
    triangle = warmup(up_steps).then(linear(up_steps if down_steps is None else down_steps))
    wave = triangle.repeat(factor=0.5 if mode == "triangular2" else 1.0)
    if mode == "exp_range":
        wave = wave * exponential_decay(1.0, 1, gamma)
    return (peak_value - init_value) * wave + init_value
