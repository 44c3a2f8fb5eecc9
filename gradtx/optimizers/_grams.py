# SPDX-License-Identifier: Apache-2.0
"""Grams: Adam's step sizes in the gradient's direction."""

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams
from gradtx.wrappers._signs import with_gradient_signs


@transformation
def grams(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """Grams: u = |u of Adam| sign(g), with decoupled weight decay.

    `with_gradient_signs` does the same for other rules.

    Args:
      mask: where to decay, see `add_decayed_weights`.

    Reference: Cao et al. 2024, arXiv:2412.17107.
    """
    return chain(
        with_gradient_signs(scale_by_adam(b1, b2, eps, eps_root, mu_dtype)),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
