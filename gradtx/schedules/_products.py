# SPDX-License-Identifier: Apache-2.0
"""Products of one factor for each step."""

import jax
import jax.numpy as jnp

from gradtx.core._ranges import PositiveInt, Real
from gradtx.core._types import ScheduleFn, StepFn
from gradtx.schedules._schedule import Lasting, schedule
from gradtx.schedules._steps import alike


@schedule
def multiplicative_schedule(init_value: Real, factor: StepFn, steps: PositiveInt) -> ScheduleFn:
    """Multiplies the value at each step by a factor that depends on the step.

    ```
    init_value * factor(1) * factor(2) * ... * factor(min(t, steps))
    ```

    Args:
      factor: a function from the step, from 1, to the factor.
      steps: the number of factors, after which the value stays. Each call evaluates all of them, so keep it to
        thousands.

    Raises:
      TypeError: if `factor` is not a function; for a constant one see `exponential_decay`.
    """

    def at(count):
        count, start = alike(count, init_value)
        factors = jax.vmap(lambda t: jnp.asarray(factor(t), count.dtype))(jnp.arange(1, steps + 1).astype(count.dtype))
        products = jnp.concatenate([jnp.ones([1], count.dtype), jnp.cumprod(factors)])
        return start * products[jnp.clip(jnp.floor(count), 0, steps).astype(int)]

    return Lasting(at, steps)
