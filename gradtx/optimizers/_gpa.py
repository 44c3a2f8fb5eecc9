# SPDX-License-Identifier: Apache-2.0
"""AdamW with generalized primal averaging."""

from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import adamw
from gradtx.wrappers._primal_averaging import primal_averaging
from gradtx.wrappers._schedule_free_averaging import Interpolation


@transformation
def gpa_adamw(
    learning_rate: ScalarOrSchedule,
    mu_x: Decay = 0.9967,
    mu_y: Interpolation = 0.8,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    state_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """GPA-AdamW: `adamw` on z, with gradients taken near the moving average of z.

    See `primal_averaging` for the formula. Validate, save and deploy the average: `eval_params(state, params)`.

    Args:
      mu_x, mu_y: the decay of the average of z, and its weight in the parameters.
      state_dtype: the dtype in which z is stored; None for at least float32.

    Reference: Defazio et al. 2025, arXiv:2512.17131.
    """
    return primal_averaging(adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay), mu_x, mu_y, state_dtype)
