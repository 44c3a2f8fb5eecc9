# SPDX-License-Identifier: Apache-2.0
"""LAMB: Adam with steps in proportion to the norm of each parameter."""

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._trust_ratio import scale_by_trust_ratio
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


@transformation
def lamb(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    *,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """r = adam(g) + weight_decay p; p = p - learning_rate * r ‖p‖ / ‖r‖, parameter by parameter.

    The paper's φ, which may bound ‖p‖, is the identity. Where ‖p‖ or ‖r‖ is 0 the ratio is 1.

    Args:
      mask: where to decay, see `add_decayed_weights`.

    Reference: You et al. 2019, arXiv:1904.00962, algorithm 2.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_lr(learning_rate),
    )
