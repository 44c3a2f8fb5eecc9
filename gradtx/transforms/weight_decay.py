# SPDX-License-Identifier: Apache-2.0
"""Weight decay."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gradtx.core.factory import per_parameter, transformation
from gradtx.core.ranges import NonNegative
from gradtx.core.transformation import GradientTransformationExtraArgs
from gradtx.core.types import Params
from gradtx.wrappers.masked import masked


class WeightDecaySchedule(NamedTuple):
    """The number of updates made, where the weight decay is a schedule."""

    count: jax.Array


@transformation
def add_decayed_weights(
    weight_decay: NonNegative = 0.0, mask: Any | Callable[[Params], Any] = None
) -> GradientTransformationExtraArgs:
    """u = g + weight_decay * p.

    Before an adaptive stage it is L2 regularization; after it and before the learning rate, decoupled weight decay.

    Args:
      mask: a tree of booleans like the parameters, or a function from them to one: where to decay. None for everywhere.

    Reference: Loshchilov and Hutter 2017, arXiv:1711.05101.
    """
    if mask is not None:
        return masked(add_decayed_weights(weight_decay), mask)

    def update(g, slots, p, t):
        return g + weight_decay * p, slots

    return per_parameter(None, update, WeightDecaySchedule if callable(weight_decay) else None, needs_params=True)
