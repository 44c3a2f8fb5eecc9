# SPDX-License-Identifier: Apache-2.0
"""AdamG: Adam whose step sizes come from its own second moment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative, at_step
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._roots import safe_power
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByAdamGState(NamedTuple):
    """The number of updates made, and the averages of r g, of |g|² and of the step sizes."""

    count: jax.Array
    mu: Updates
    nu: Updates
    r: Updates


@transformation
def scale_by_adamg(
    b1: Decay = 0.95,
    b2: Decay = 0.999,
    b3: Decay = 0.95,
    eps: NonNegative = 1e-8,
    factor: NonNegative = 0.2,
    power: NonNegative = 0.24,
    mu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """AdamG's direction, in which r is the step size of each element:

    ```
    nu = b2 nu + (1 - b2) g²        r = b3 r + (1 - b3) factor nu^power
    mu = b1 mu + (1 - b1) r g       u = (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t)) + eps)
    ```

    Args:
      factor, power: p and q of the paper's numerator function s(x) = p x^q.
      mu_dtype: the dtype in which mu is stored; None for at least float32.

    Reference: Pang et al. 2024, arXiv:2405.04376.
    """

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, real=True), zeros_like(p, real=True)

    def shared(t, total):
        return correction(b1, t), correction(b2, t)

    def update(g, slots, p, t, corrections):
        (mu, nu, r), (of_mu, of_nu) = slots, corrections
        nu = ema(nu, abs_sq(g), b2)
        r = ema(r, factor * safe_power(nu, power), b3)
        mu = ema(mu, r * g, b1)
        return safe_divide(of_mu * mu, safe_sqrt(of_nu * nu) + eps), (mu, nu, r)

    return per_parameter(init, update, ScaleByAdamGState, shared=shared)


@transformation
def adamg(
    learning_rate: ScalarOrSchedule = 1.0,
    b1: Decay = 0.95,
    b2: Decay = 0.999,
    b3: Decay = 0.95,
    eps: NonNegative = 1e-8,
    factor: NonNegative = 0.2,
    power: NonNegative = 0.24,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """AdamG: p = p - min(learning_rate, 1 / sqrt(t)) (u + weight_decay p), without a learning rate to tune.

    See `scale_by_adamg` for the formula.

    Args:
      learning_rate: an upper limit of the step size; with 1, as in the paper, that is 1 / sqrt(t).
      factor, power: see `scale_by_adamg`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Pang et al. 2024, arXiv:2405.04376.
    """

    def rate(count):
        limit = jax.lax.rsqrt(jnp.asarray(count, jnp.result_type(float)) + 1)
        return jnp.minimum(at_step("adamg: learning_rate", learning_rate, count), limit)

    return chain(
        scale_by_adamg(b1, b2, b3, eps, factor, power, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(rate),
    )
