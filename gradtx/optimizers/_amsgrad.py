# SPDX-License-Identifier: Apache-2.0
"""AMSGrad: Adam whose denominator never shrinks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr


class ScaleByAmsgradState(NamedTuple):
    """The number of updates made, the moving averages of g and |g|², and the largest second moment so far."""

    count: jax.Array
    mu: Updates
    nu: Updates
    nu_max: Updates


@transformation
def scale_by_amsgrad(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_of_corrected: bool = True,
) -> GradientTransformationExtraArgs:
    """AMSGrad's direction; the paper's has neither of the two bias corrections:

    ```
    mu = b1 mu + (1 - b1) g           nu = b2 nu + (1 - b2) g²
    nu_max = max(nu_max, nu / (1 - b2^t))
    u  = (mu / (1 - b1^t)) / (sqrt(nu_max + eps_root) + eps)
    ```

    Args:
      mu_dtype: the dtype in which mu is stored; None for at least float32.
      bias_correction_mu, bias_correction_nu: whether to divide mu by 1 - b1^t and nu by 1 - b2^t.
      max_of_corrected: False keeps the largest uncorrected nu and corrects it at each step, as in PyTorch and Keras;
        the denominator can then shrink, but at most by its correction.

    Reference: Reddi, Kale and Kumar 2018, arXiv:1904.09237, algorithm 2.
    """

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, real=True), zeros_like(p, real=True)

    def shared(t, total):
        of_mu = correction(b1, t) if bias_correction_mu else 1.0
        of_nu = correction(b2, t) if bias_correction_nu else 1.0
        return (of_mu, of_nu, 1.0) if max_of_corrected else (of_mu, 1.0, of_nu)

    def update(g, slots, p, t, corrections):
        (mu, nu, nu_max), (of_mu, of_nu, of_max) = slots, corrections
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        nu_max = jnp.maximum(nu_max, of_nu * nu)
        return safe_divide(of_mu * mu, safe_sqrt(of_max * nu_max + eps_root) + eps), (mu, nu, nu_max)

    return per_parameter(init, update, ScaleByAmsgradState, shared=shared)


@transformation
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_of_corrected: bool = True,
) -> GradientTransformationExtraArgs:
    """AMSGrad: Adam with the largest second moment so far in the denominator.

    See `scale_by_amsgrad` for the formula. PyTorch's `Adam(amsgrad=True)` is `max_of_corrected=False`; the paper's
    algorithm is `bias_correction_mu=False, bias_correction_nu=False`.

    Args:
      bias_correction_mu, bias_correction_nu, max_of_corrected: see `scale_by_amsgrad`.

    Reference: Reddi, Kale and Kumar 2018, arXiv:1904.09237.
    """
    scaling = scale_by_amsgrad(
        b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu, max_of_corrected=max_of_corrected
    )
    return chain(scaling, scale_by_lr(learning_rate))
