# SPDX-License-Identifier: Apache-2.0
"""The warm-ups of AdEMAMix's slow average: `ademamix(rate, b3=ademamix_b3_schedule(...), alpha=...)`.

The paper counts steps from 1, so the first update, whose count is 0, gets the value for t = 1.
"""

import math
from typing import Annotated, Any

import jax.numpy as jnp

from gradtx.core._ranges import LimitOrZero, NonNegative, Range, is_number
from gradtx.core._types import ScheduleFn
from gradtx.schedules._curves import linear, progress
from gradtx.schedules._schedule import composition
from gradtx.schedules._steps import in_floats, since

ProperDecay = Annotated[Any, Range(low=0.0, high=1.0, low_open=True, high_open=True, example=0.9)]


@composition
def ademamix_alpha_schedule(alpha: NonNegative, transition_steps: LimitOrZero) -> ScheduleFn:
    """The weight of the slow average: grows linearly from 0 to `alpha`, which it reaches at update `transition_steps`.

    min(alpha t / transition_steps, alpha), t = count + 1

    Args:
      alpha: the final weight.

    Reference: Pagliardini et al. 2024, arXiv:2409.03137.
    """

    def at(count):
        (end,) = in_floats(count, alpha)
        return linear(since(count, -1), 0.0, end, transition_steps)

    return at


@composition
def ademamix_b3_schedule(b3: ProperDecay, transition_steps: LimitOrZero, b_start: ProperDecay = 0.9) -> ScheduleFn:
    """The decay of the slow average: its half-life grows linearly from that of `b_start` to that of `b3`.

    exp(log(b_start) log(b3) / ((1 - x) log(b3) + x log(b_start))), x = min(t / transition_steps, 1), t = count + 1

    Args:
      b3: the final decay, in (0, 1).
      b_start: the decay at the start, in (0, 1); b1 in the paper.

    Reference: Pagliardini et al. 2024, arXiv:2409.03137.
    """

    def at(count):
        end, start = in_floats(count, b3, b_start)
        log_end, log_start = (math.log(b) if is_number(b) else jnp.log(b) for b in (end, start))
        done, left = progress(since(count, -1), transition_steps)
        return jnp.exp(log_start * log_end / (left * log_end + done * log_start))

    return at
