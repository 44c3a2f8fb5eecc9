# SPDX-License-Identifier: Apache-2.0
"""Differentially private stochastic gradient descent."""

from typing import Any

from gradtx.core._combine import chain, identity
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.transforms._momentum import trace
from gradtx.transforms._privacy import differentially_private_aggregate
from gradtx.transforms._scaling import scale_by_lr


@transformation
def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: Positive,
    noise_multiplier: NonNegative,
    seed: Any,
    momentum: Decay | None = None,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """Descent with clipped and noisy gradients of single examples: their axis is the first, as in
    `differentially_private_aggregate`, which has the formula.

    The privacy that training keeps follows from `noise_multiplier`, the batch size and the number of steps, with an
    accountant of another library.

    Args:
      seed: a whole number, or a key of `jax.random`.
      momentum: the decay of `trace`, after the noise; None for none.

    Reference: Abadi et al. 2016, arXiv:1607.00133.
    """
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed),
        identity() if momentum is None else trace(momentum, nesterov),
        scale_by_lr(learning_rate),
    )
