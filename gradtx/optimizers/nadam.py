# SPDX-License-Identifier: Apache-2.0
"""NAdam with its momentum schedule. Without it, see `nadam`."""

from typing import NamedTuple

import jax

from gradtx.core.factory import per_parameter, transformation
from gradtx.core.ranges import Decay, NonNegative
from gradtx.core.transformation import GradientTransformationExtraArgs
from gradtx.core.types import Updates
from gradtx.numerics.moments import ema, one_minus_power, zeros_like
from gradtx.numerics.safe import abs_sq, safe_sqrt


class ScaleByNadamState(NamedTuple):
    """The number of updates made, the product of all momentum weights, and the moving averages of g and |g|²."""

    count: jax.Array
    momentum_product: jax.Array
    mu: Updates
    nu: Updates


@transformation
def scale_by_nadam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    momentum_decay: NonNegative = 0.004,
) -> GradientTransformationExtraArgs:
    """NAdam's direction with a momentum weight w(t) that grows from b1 / 2 to b1:

    ```
    w(t) = b1 (1 - 0.96^(t momentum_decay) / 2)           P = P w(t), from 1
    mu = b1 mu + (1 - b1) g           nu = b2 nu + (1 - b2) g²
    m  = w(t+1) mu / (1 - P w(t+1)) + (1 - w(t)) g / (1 - P)
    u  = m / (sqrt(nu / (1 - b2^t) + eps_root) + eps)
    ```

    `chain(scale_by_nadam(), scale_by_lr(a))` is PyTorch's NAdam; Keras's has momentum_decay=1 and eps=1e-7.

    Reference: Dozat 2016, "Incorporating Nesterov momentum into Adam", whose mu decays with w(t) too.
    """

    def shared(t, total, memory):
        now, ahead = (b1 * (1 - 0.5 * 0.96 ** (s * momentum_decay)) for s in (t, t + 1))
        product = memory["momentum_product"] * now
        weights = ahead / (1 - product * ahead), (1 - now) / (1 - product), 1 / one_minus_power(b2, t)
        return weights, {"momentum_product": product}

    def update(g, slots, p, t, weights):
        (mu, nu), (of_mu, of_g, of_nu) = slots, weights
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        return (of_mu * mu + of_g * g) / (safe_sqrt(of_nu * nu + eps_root) + eps), (mu, nu)

    return per_parameter(
        lambda p: (zeros_like(p), zeros_like(p, real=True)),
        update,
        ScaleByNadamState,
        shared=shared,
        memory=lambda: {"momentum_product": 1.0},
    )
