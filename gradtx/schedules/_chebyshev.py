# SPDX-License-Identifier: Apache-2.0
"""Chebyshev's step sizes in a fractal order."""

import math

import jax.numpy as jnp
import numpy as np

from gradtx.core._ranges import Positive, PositiveInt
from gradtx.core._types import ScheduleFn
from gradtx.schedules._checks import known
from gradtx.schedules._schedule import Lasting, schedule
from gradtx.schedules._steps import alike


def fractal_order(steps: int) -> np.ndarray:
    """The order of 0, ..., steps - 1 that keeps all partial products of the steps' factors small."""
    order = np.zeros(1, int)
    while len(order) < steps:
        order = np.stack([order, 2 * len(order) - 1 - order], axis=1).reshape(-1)
    return order


@schedule
def chebyshev_schedule(steps: PositiveInt, min_curvature: Positive, max_curvature: Positive) -> ScheduleFn:
    """The step sizes with which plain gradient descent is fastest on quadratics with curvatures in a given range.

    ```
    2 / (M + m - (M - m) cos(pi (i + 1/2) / steps)), i = order[t], m = min_curvature, M = max_curvature
    order of 2n = each i of the order of n, followed by 2n - 1 - i
    ```

    Some steps are far longer than 2 / M; their order keeps rounding errors small. After the last step its value stays;
    `.repeat()` starts over instead.

    Args:
      steps: the number of different step sizes, a power of 2.
      min_curvature, max_curvature: the bounds of the eigenvalues of the Hessian.

    Raises:
      ValueError: if `steps` is not a power of 2, or for `max_curvature` < `min_curvature`.

    Reference: Agarwal et al. 2021, arXiv:2103.01338.
    """
    if steps & (steps - 1):
        raise ValueError(f"chebyshev_schedule: steps must be a power of 2, got {steps}")
    if known(min_curvature, max_curvature) and np.any(np.asarray(max_curvature) < np.asarray(min_curvature)):
        raise ValueError(
            f"chebyshev_schedule: max_curvature must be at least min_curvature = {min_curvature}, got {max_curvature}"
        )
    cosines = np.cos(math.pi * (fractal_order(steps) + 0.5) / steps)

    def at(count):
        count, low, high = alike(count, min_curvature, max_curvature)
        i = jnp.clip(jnp.floor(count), 0, steps - 1).astype(int)
        return 2.0 / (high + low - (high - low) * jnp.asarray(cosines, count.dtype)[i])

    return Lasting(at, steps)
