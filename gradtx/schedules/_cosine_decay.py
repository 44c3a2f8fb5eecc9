# SPDX-License-Identifier: Apache-2.0
"""Cosine decay."""

from gradtx.core._ranges import Limit, NonNegative, Real
from gradtx.core._types import ScheduleFn
from gradtx.schedules._curves import cosine
from gradtx.schedules._schedule import Lasting, composition
from gradtx.schedules._steps import in_floats, since


@composition
def cosine_decay_schedule(
    init_value: Real, decay_steps: Limit, alpha: Real = 0.0, exponent: NonNegative = 1.0
) -> ScheduleFn:
    """Decay along half a period of a cosine, to the fraction `alpha` of the initial value.

    ```
    c = ((1 + cos(pi * min(t, decay_steps) / decay_steps)) / 2) ** exponent
    init_value * ((1 - alpha) * c + alpha)
    ```

    Args:
      decay_steps: the number of updates until the end, after which the value stays.
      alpha: the final value as a fraction of the initial one.
      exponent: the power of the cosine; 1 for the usual cosine decay, larger ones decay faster at first.

    Reference: Loshchilov and Hutter, arXiv 1608.03983
    """

    def at(count):
        start, floor, p = in_floats(count, init_value, alpha, exponent)
        return cosine(since(count, 0), start, start * floor, decay_steps, p)

    return Lasting(at, decay_steps)
