# SPDX-License-Identifier: Apache-2.0
"""Adam, with decoupled weight decay or without."""

from typing import NamedTuple

import jax

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._operations import multiply
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import correction, ema, unbiased, weighted, zeros_like
from gradtx.numerics._safe import abs_sq, over_root
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByAdamState(NamedTuple):
    """The number of updates made, and the moving averages of g and |g|²."""

    count: jax.Array
    mu: Updates
    nu: Updates


@transformation
def scale_by_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """Adam's direction:

    ```
    mu = b1 mu + (1 - b1) g           nu = b2 nu + (1 - b2) g²
    u  = (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)
    ```

    Args:
      eps: added outside the root; where both are 0, 0 / 0 is 0.
      eps_root: added inside the root.
      mu_dtype, nu_dtype: the dtypes in which the moments are stored; None for at least float32.
      nesterov: the numerator becomes b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t).

    References: Kingma and Ba 2014, arXiv:1412.6980; Dozat 2016 (Nesterov momentum).
    """

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, nu_dtype, real=True)

    def shared(t, total):
        return unbiased(b1, t, nesterov), correction(b2, t)

    def update(g, slots, p, t, corrections):
        (mu, nu), (of_mu, of_nu) = slots, corrections
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        return over_root(weighted(mu, g, of_mu), multiply(of_nu, nu), eps, eps_root), (mu, nu)

    return per_parameter(init, update, ScaleByAdamState, shared=shared)


@transformation
def adam(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """Adam: moving averages of the gradient and its square, both corrected for their start at zero.

    See `scale_by_adam` for the formula. Keras's Adam has eps=1e-7.

    Reference: Kingma and Ba 2014, arXiv:1412.6980.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        scale_by_lr(learning_rate),
    )


@transformation
def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 1e-4,
    mask: MaskOfParams | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """Adam with decoupled weight decay: p = p - learning_rate (u + weight_decay p).

    The weight decay is multiplied by the learning rate, as in PyTorch and Optax; in the paper it is not.

    Args:
      mask: where to decay, see `add_decayed_weights`.

    Reference: Loshchilov and Hutter 2017, arXiv:1711.05101.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
