# SPDX-License-Identifier: Apache-2.0
"""Differentially private stochastic gradient descent."""

from gradtx.core._combine import chain, identity
from gradtx.core._factory import transformation
from gradtx.core._kinds import Seed
from gradtx.core._ranges import Momentum, NonNegative, Positive
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
    seed: Seed,
    momentum: Momentum | None = None,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """Differentially private descent: the gradients of single examples are clipped and averaged, and noise is added.

    See `differentially_private_aggregate` for the formula. The first axis of each gradient is that of the examples. How
    much privacy training keeps follows from `noise_multiplier`, the batch size and the number of steps; to compute it,
    use a privacy accountant of another library.

    Args:
      l2_norm_clip: the largest norm that an example's gradient keeps, over all parameters together.
      noise_multiplier: the standard deviation of the noise on the sum of gradients, in units of `l2_norm_clip`.
      seed: a whole number, or a key of `jax.random`.
      momentum: the decay of a velocity, after the noise; None for no momentum.

    Reference: Abadi et al. 2016, arXiv:1607.00133.
    """
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed),
        identity() if momentum is None else trace(momentum, nesterov),
        scale_by_lr(learning_rate),
    )
