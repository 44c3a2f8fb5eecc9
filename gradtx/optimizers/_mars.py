# SPDX-License-Identifier: Apache-2.0
"""MARS: variance reduction in front of Adam."""

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, DType, Limit, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._filters import mars_correction
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


@transformation
def mars(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    *,
    gamma: NonNegative = 0.025,
    max_norm: Limit | None = 1.0,
) -> GradientTransformationExtraArgs:
    """MARS-AdamW: AdamW on gradients whose variance a correction reduces.

    See `mars_correction` for the formula. For another rule, write the chain yourself:
    `chain(mars_correction(b1=0.9), scale_by_lion(b1=0.9), ...)`. Vectors are corrected too; the authors' code leaves
    them to plain AdamW by default.

    Args:
      mask: where to decay, see `add_decayed_weights`.
      gamma: the weight of the correction; 0 is AdamW.
      max_norm: the largest norm of a parameter's corrected gradient; None for no clipping.

    Reference: Yuan et al. 2024, arXiv:2411.10438.
    """
    return chain(
        mars_correction(gamma, b1, max_norm),
        scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
