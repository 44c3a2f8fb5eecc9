# SPDX-License-Identifier: Apache-2.0
"""Gradient descent, with or without momentum."""

from gradtx.core._combine import chain, identity
from gradtx.core._factory import transformation
from gradtx.core._ranges import DType, Momentum
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.transforms._momentum import trace
from gradtx.transforms._scaling import scale_by_lr


@transformation
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: Momentum | None = None,
    nesterov: bool = False,
    accumulator_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """p = p - learning_rate * g; with momentum, v = momentum * v + g takes the place of g.

    Batch, stochastic and mini-batch descent are this rule with gradients of different data.

    Args:
      momentum: the decay of v; None for no momentum.

    Raises:
      ValueError: for `nesterov=True` without momentum.
    """
    if nesterov and momentum is None:
        raise ValueError("sgd: nesterov=True needs a momentum, got momentum=None")
    velocity = identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)
    return chain(velocity, scale_by_lr(learning_rate))
