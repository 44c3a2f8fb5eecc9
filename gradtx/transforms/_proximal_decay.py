# SPDX-License-Identifier: Apache-2.0
"""Weight decay as a proximal step."""

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.wrappers._masked import MaskOfParams, masked


@transformation
def add_proximal_decay(
    learning_rate: ScalarOrSchedule, weight_decay: NonNegative = 0.0, mask: MaskOfParams | None = None
) -> GradientTransformationExtraArgs:
    """u = (g + weight_decay p) / (1 + learning_rate weight_decay).

    Put it before `scale_by_lr(learning_rate)` with the same rate. Then p becomes
    (p - learning_rate g) / (1 + learning_rate weight_decay), the minimum of
    |p_new - p + learning_rate g|² + learning_rate weight_decay |p_new|². Unlike `add_decayed_weights`, the decay never
    changes the sign of a parameter, however large the rate.

    Args:
      mask: True where to decay; see `add_decayed_weights`.

    References: Zhuang et al. 2022, arXiv:2202.00089; Xie et al. 2022, arXiv:2208.06677 (Adan).
    """
    if mask is not None:
        return masked(add_proximal_decay(learning_rate, weight_decay), mask)

    def update(g, slots, p, t):
        return (g + weight_decay * p) / (1 + learning_rate * weight_decay), slots

    return per_parameter(None, update, needs_params=True)
