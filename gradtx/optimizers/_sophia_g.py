# SPDX-License-Identifier: Apache-2.0
"""Sophia with an estimate that needs first derivatives only."""

from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, DType, Limit, NonNegative, Positive, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._sophia import sophia
from gradtx.transforms._hessian_diagonal import gauss_newton_bartlett
from gradtx.wrappers._masked import MaskOfParams


@transformation
def sophia_g(
    learning_rate: ScalarOrSchedule,
    batch_size: Positive,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-12,
    weight_decay: NonNegative = 1e-4,
    weight_decay_mask: MaskOfParams | None = None,
    gamma: Positive = 0.05,
    clip_threshold: Limit | None = 1.0,
    update_interval: PositiveInt = 10,
    mu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """`sophia` with the Gauss-Newton-Bartlett estimate of the Hessian's diagonal, batch_size * ĝ².

    ĝ is the gradient at labels drawn from the model; `update` needs it as `sampled_grad`. See
    `curvature.gauss_newton_bartlett`.

    Args:
      batch_size: the number of examples over which the loss is a mean.
      eps, gamma, clip_threshold, update_interval: see `sophia`.

    Reference: Liu et al. 2023, arXiv:2305.14342, algorithms 2 and 3.
    """
    estimator = gauss_newton_bartlett(batch_size)
    decay = weight_decay, weight_decay_mask
    return sophia(learning_rate, b1, b2, eps, *decay, gamma, clip_threshold, update_interval, estimator, mu_dtype)
