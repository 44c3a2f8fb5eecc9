# SPDX-License-Identifier: Apache-2.0
"""NAdam: Adam with Nesterov momentum, whose weight may grow by a schedule."""

from typing import NamedTuple

import jax

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


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
    *,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """NAdam's direction with a momentum weight w(t) that grows from b1 / 2 to b1:

    ```
    w(t) = b1 (1 - 0.96^(t momentum_decay) / 2)           P = P w(t), from 1
    mu = b1 mu + (1 - b1) g           nu = b2 nu + (1 - b2) g²
    m  = w(t+1) mu / (1 - P w(t+1)) + (1 - w(t)) g / (1 - P)
    u  = m / (sqrt(nu / (1 - b2^t) + eps_root) + eps)
    ```

    Args:
      momentum_decay: how fast w(t) grows; 0.004 in PyTorch, 1 in Keras.
      mu_dtype, nu_dtype: the dtypes in which the moments are stored; None for at least float32.

    Reference: Dozat 2016, "Incorporating Nesterov momentum into Adam", whose mu decays by w(t) too.
    """

    def shared(t, total, memory):
        now, ahead = (b1 * (1 - 0.5 * 0.96 ** (s * momentum_decay)) for s in (t, t + 1))
        product = memory["momentum_product"] * now
        weights = ahead / (1 - product * ahead), (1 - now) / (1 - product), correction(b2, t)
        return weights, {"momentum_product": product}

    def update(g, slots, p, t, weights):
        (mu, nu), (of_mu, of_g, of_nu) = slots, weights
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        return safe_divide(of_mu * mu + of_g * g, safe_sqrt(of_nu * nu + eps_root) + eps), (mu, nu)

    return per_parameter(
        lambda p: (zeros_like(p, mu_dtype), zeros_like(p, nu_dtype, real=True)),
        update,
        ScaleByNadamState,
        shared=shared,
        memory=lambda: {"momentum_product": 1.0},
    )


def _direction(name, b1, b2, eps, eps_root, mu_dtype, nesterov, nu_dtype, momentum_decay):
    if momentum_decay is None:
        return scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype)
    if not nesterov:
        raise ValueError(f"{name}: momentum_decay needs nesterov=True, got momentum_decay={momentum_decay}")
    return scale_by_nadam(b1, b2, eps, eps_root, momentum_decay, mu_dtype=mu_dtype, nu_dtype=nu_dtype)


@transformation
def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    *,
    nesterov: bool = True,
    nu_dtype: DType = None,
    momentum_decay: NonNegative | None = None,
) -> GradientTransformationExtraArgs:
    """Adam with Nesterov momentum: `scale_by_adam(nesterov=True)`, or with a momentum schedule `scale_by_nadam`.

    Args:
      momentum_decay: see `scale_by_nadam`; None for a constant momentum weight b1. Keras has 1 with eps=1e-7.

    Reference: Dozat 2016, "Incorporating Nesterov momentum into Adam".
    """
    direction = _direction("nadam", b1, b2, eps, eps_root, mu_dtype, nesterov, nu_dtype, momentum_decay)
    return chain(direction, scale_by_lr(learning_rate))


@transformation
def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 1e-4,
    mask: MaskOfParams | None = None,
    *,
    nesterov: bool = True,
    nu_dtype: DType = None,
    momentum_decay: NonNegative | None = None,
) -> GradientTransformationExtraArgs:
    """`nadam` with the decoupled weight decay of `adamw`: p = p - learning_rate (u + weight_decay p).

    Args:
      mask: where to decay, see `add_decayed_weights`.
      momentum_decay: see `scale_by_nadam`; None for a constant momentum weight b1.

    Reference: Dozat 2016, "Incorporating Nesterov momentum into Adam".
    """
    direction = _direction("nadamw", b1, b2, eps, eps_root, mu_dtype, nesterov, nu_dtype, momentum_decay)
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate))
