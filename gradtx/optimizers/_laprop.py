# SPDX-License-Identifier: Apache-2.0
"""LaProp: the gradient is normalized first, and then averaged."""

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


@transformation
def scale_by_laprop(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-15, mu_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """LaProp's direction:

    ```
    nu = b2 nu + (1 - b2) g²
    mu = b1 mu + (1 - b1) g / (sqrt(nu / (1 - b2^t)) + eps)        u = mu / (1 - b1^t)
    ```

    Args:
      mu_dtype: the dtype in which mu is stored; None for at least float32.

    Reference: Ziyin et al. 2020, arXiv:2002.04839.
    """

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, real=True)

    def shared(t, total):
        return correction(b1, t), correction(b2, t)

    def update(g, slots, p, t, corrections):
        (mu, nu), (of_mu, of_nu) = slots, corrections
        nu = ema(nu, abs_sq(g), b2)
        mu = ema(mu, safe_divide(g, safe_sqrt(of_nu * nu) + eps), b1)
        return of_mu * mu, (mu, nu)

    return per_parameter(init, update, ScaleByAdamState, shared=shared)


@transformation
def laprop(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-15,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """LaProp: Adam that normalizes the gradient before the momentum, not after it; stable for any b1 and b2.

    See `scale_by_laprop` for the formula.

    Args:
      mask: where to decay, see `add_decayed_weights`.

    Reference: Ziyin et al. 2020, arXiv:2002.04839.
    """
    return chain(
        scale_by_laprop(b1, b2, eps, mu_dtype), add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate)
    )
