# SPDX-License-Identifier: Apache-2.0
"""diffGrad: Adam that slows down where the gradient hardly changes."""

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
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByDiffGradState(NamedTuple):
    """The number of updates made, the moving averages of g and |g|², and the last gradients."""

    count: jax.Array
    mu: Updates
    nu: Updates
    previous: Updates


@transformation
def scale_by_diffgrad(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8, mu_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """diffGrad's direction, Adam's times a friction c between ½ and 1; g_before is the last gradient, at first 0:

    ```
    mu = b1 mu + (1 - b1) g           nu = b2 nu + (1 - b2) g²           c = 1 / (1 + exp(-|g - g_before|))
    u  = c (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t)) + eps)
    ```

    Args:
      mu_dtype: the dtype in which mu is stored; None for at least float32.

    Reference: Dubey et al. 2019, arXiv:1909.11015.
    """

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, real=True), zeros_like(p)

    def shared(t, total):
        return correction(b1, t), correction(b2, t)

    def update(g, slots, p, t, corrections):
        (mu, nu, previous), (of_mu, of_nu) = slots, corrections
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        friction = jax.nn.sigmoid(jnp.abs(g - previous))
        return friction * safe_divide(of_mu * mu, safe_sqrt(of_nu * nu) + eps), (mu, nu, g)

    return per_parameter(init, update, ScaleByDiffGradState, shared=shared)


@transformation
def diffgrad(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """diffGrad: Adam with smaller steps for elements whose gradient is nearly that of the step before.

    See `scale_by_diffgrad` for the formula.

    Args:
      mask: where to decay, see `add_decayed_weights`.

    Reference: Dubey et al. 2019, arXiv:1909.11015.
    """
    return chain(
        scale_by_diffgrad(b1, b2, eps, mu_dtype), add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate)
    )
