# SPDX-License-Identifier: Apache-2.0
"""The moving average of the updates."""

from typing import NamedTuple

import jax

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates
from gradtx.numerics import _averages as moments


class EmaState(NamedTuple):
    """The number of updates made, and their moving average."""

    count: jax.Array
    ema: Updates


@transformation
def ema(decay: Decay, debias: bool = True, accumulator_dtype: DType = None) -> GradientTransformationExtraArgs:
    """m = decay m + (1 - decay) g; u = m / (1 - decay^t), or m itself.

    It is `scale_by_momentum(decay, averaged=True)` with Optax's name and state.

    Args:
      debias: whether to divide by 1 - decay^t, the total weight of the average so far.
      accumulator_dtype: the dtype in which m is stored; None for at least float32.
    """

    def shared(t, total):
        return moments.correction(decay, t) if debias else 1.0

    def update(g, m, p, t, of_m):
        m = moments.ema(m, g, decay)
        return of_m * m if debias else m, m

    return per_parameter(lambda p: moments.zeros_like(p, accumulator_dtype), update, EmaState, shared=shared)
