# SPDX-License-Identifier: Apache-2.0
"""A power of the number of tokens seen."""

from typing import Annotated, Any

import jax.numpy as jnp

from gradtx.core._ranges import Positive, Range, Real
from gradtx.core._types import ScheduleFn
from gradtx.schedules._schedule import schedule
from gradtx.schedules._steps import alike

Falling = Annotated[Any, Range(high=0.0, example=-0.5)]


@schedule
def power_schedule(
    max_value: Real, batch_size: Positive, tokens_per_step: Positive, a: Positive = 4.6, b: Falling = -0.51
) -> ScheduleFn:
    """A learning rate for muP that needs no retuning for another length of the run or another batch size.

    ```
    min(max_value, batch_size * a * tokens ** b), tokens = t * tokens_per_step
    ```

    The paper adds a warm-up and a final decay: `power_schedule(...) * warmup(w).then(linear(c).until(n - w))`.

    Args:
      max_value: the largest value, also that at t = 0.
      batch_size: in sequences.
      tokens_per_step: the number of tokens in one batch.
      a: the amplitude, positive.
      b: the exponent, at most 0.

    Reference: Shen et al. 2024, arXiv:2408.13359.
    """

    def at(count):
        count, highest, sequences, tokens, factor, exponent = alike(count, max_value, batch_size, tokens_per_step, a, b)
        positive = count > 0
        seen = jnp.where(positive, count, 1.0) * tokens
        return jnp.where(positive, jnp.minimum(highest, sequences * factor * seen**exponent), highest)

    return at
