# SPDX-License-Identifier: Apache-2.0
"""A power of the tokens seen."""

from typing import Annotated, Any

import jax.numpy as jnp

from gradtx.core._ranges import Positive, Range, Real
from gradtx.core._types import ScheduleFn
from gradtx.schedules._schedule import schedule
from gradtx.schedules._steps import alike

Falling = Annotated[Any, Range(high=0.0, high_open=True, example=-0.5)]


@schedule
def power_schedule(
    max_value: Real, batch_size: Positive, tokens_per_step: Positive, a: Positive = 4.6, b: Falling = -0.51
) -> ScheduleFn:
    """A rate that knows neither the length of the run nor the batch size beforehand, for muP.

    ```
    min(max_value, batch_size * a * tokens ** b), tokens = t * tokens_per_step
    ```

    The paper warms up before it and decays at the end: `power_schedule(...) * warmup(w).then(linear(c).until(n - w))`.

    Args:
      batch_size: in sequences.

    Reference: Shen et al. 2024, arXiv:2408.13359.
    """

    def at(count):
        count, highest, sequences, tokens, factor, exponent = alike(count, max_value, batch_size, tokens_per_step, a, b)
        positive = count > 0
        seen = jnp.where(positive, count, 1.0) * tokens
        return jnp.where(positive, jnp.minimum(highest, sequences * factor * seen**exponent), highest)

    return at
