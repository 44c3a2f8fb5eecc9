# SPDX-License-Identifier: Apache-2.0
"""Yogi: Adam whose second moment changes additively, so that it cannot shrink quickly."""

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.transforms._scaling import scale_by_lr


@transformation
def scale_by_yogi(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 1e-6,
    *,
    bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """Yogi's direction:

    ```
    mu = b1 mu + (1 - b1) g           nu = nu - (1 - b2) sign(nu - g²) g²
    u  = (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)
    ```

    Args:
      initial_accumulator_value: the initial value of nu.
      bias_correction: False leaves both corrections out, as the paper's algorithm does.

    Reference: Zaheer et al. 2018, "Adaptive methods for nonconvex optimization", algorithm 2.
    """

    def shared(t, total):
        return (correction(b1, t), correction(b2, t)) if bias_correction else (1.0, 1.0)

    def update(g, slots, p, t, corrections):
        (mu, nu), (of_mu, of_nu) = slots, corrections
        mu, square = ema(mu, g, b1), abs_sq(g)
        nu = nu - (1 - b2) * jnp.sign(nu - square) * square
        return safe_divide(of_mu * mu, safe_sqrt(of_nu * nu + eps_root) + eps), (mu, nu)

    return per_parameter(
        lambda p: (zeros_like(p), zeros_like(p, real=True) + initial_accumulator_value),
        update,
        ScaleByAdamState,
        shared=shared,
    )


@transformation
def yogi(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    *,
    bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """Yogi: where Adam's second moment decays towards g², this one takes steps of (1 - b2) g² towards it.

    See `scale_by_yogi` for the formula.

    Reference: Zaheer et al. 2018, "Adaptive methods for nonconvex optimization".
    """
    return chain(scale_by_yogi(b1, b2, eps, bias_correction=bias_correction), scale_by_lr(learning_rate))
