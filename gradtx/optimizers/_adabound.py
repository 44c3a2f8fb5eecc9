# SPDX-License-Identifier: Apache-2.0
"""AdaBound: Adam that turns into gradient descent, as bounds on its learning rates close in on one number."""

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.optimizers._amsgrad import ScaleByAmsgradState
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


@transformation
def scale_by_adabound(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    final_ratio: Positive = 100.0,
    gamma: Positive = 1e-3,
    amsbound: bool = False,
    mu_dtype: DType = None,
    *,
    bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """AdaBound's direction, where r is the final ratio:

    ```
    mu = b1 mu + (1 - b1) g           nu = b2 nu + (1 - b2) g²
    low = r (1 - 1 / (gamma t + 1))   high = r (1 + 1 / (gamma t))
    u  = clip(1 / (sqrt(nu / (1 - b2^t)) + eps), low, high) mu / (1 - b1^t)
    ```

    In the authors' code the correction of mu is clipped too, and eps is added to the uncorrected root. The paper has
    no corrections, and divides by sqrt(t), which a schedule can do.

    Args:
      final_ratio: what 1 / sqrt(nu) is clipped to in the end, so that updates end as final_ratio mu.
      gamma: how fast the bounds close: they are within a factor of 2 of the final ratio after 1 / gamma steps.
      amsbound: True takes the largest nu so far in place of nu, which is then corrected at each step (AMSBound).
      mu_dtype: the dtype in which mu is stored; None for at least float32.
      bias_correction: False leaves out 1 - b1^t and 1 - b2^t.

    Reference: Luo et al. 2019, arXiv:1902.09843, algorithms 2 and 3.
    """

    def init(p):
        moments = zeros_like(p, mu_dtype), zeros_like(p, real=True)
        return (*moments, zeros_like(p, real=True)) if amsbound else moments

    def shared(t, total):
        corrections = (correction(b1, t), correction(b2, t)) if bias_correction else (1.0, 1.0)
        # r - r / (gamma t + 1) would lose digits as long as gamma t is small.
        return *corrections, final_ratio * gamma * t / (gamma * t + 1), final_ratio * (1 + 1 / (gamma * t))

    def update(g, slots, p, t, common):
        (mu, nu, *largest), (of_mu, of_nu, low, high) = slots, common
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        largest = [jnp.maximum(x, nu) for x in largest]
        root = safe_sqrt(of_nu * (largest[0] if largest else nu))
        scale = jnp.clip(safe_divide(jnp.ones_like(root), root + eps), low, high)
        return scale * of_mu * mu, (mu, nu, *largest)

    return per_parameter(init, update, ScaleByAmsgradState if amsbound else ScaleByAdamState, shared=shared)


@transformation
def adabound(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    final_ratio: Positive = 100.0,
    gamma: Positive = 1e-3,
    amsbound: bool = False,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    *,
    bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """AdaBound: starts as Adam and ends as gradient descent with momentum of rate final_ratio learning_rate.

    See `scale_by_adabound` for the formula. The authors name the final rate: their defaults, 0.001 at the start and 0.1
    in the end, are a ratio of 100. A schedule scales both, as in the authors' code.

    Args:
      final_ratio, gamma, amsbound, bias_correction: see `scale_by_adabound`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Luo et al. 2019, arXiv:1902.09843.
    """
    return chain(
        scale_by_adabound(b1, b2, eps, final_ratio, gamma, amsbound, mu_dtype, bias_correction=bias_correction),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
