# SPDX-License-Identifier: Apache-2.0
"""NovoGrad: momentum of gradients that are normalized tensor by tensor."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative, is_number
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr


class ScaleByNovogradState(NamedTuple):
    """The number of updates made, the momentum, and for each parameter the moving average of ‖g‖²."""

    count: jax.Array
    mu: Updates
    nu: Updates


@transformation
def scale_by_novograd(
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """NovoGrad's direction, with one number nu for a parameter of any shape:

    ```
    nu = b2 nu + (1 - b2) ‖g‖²        (‖g‖² at the first step)
    mu = b1 mu + g / (sqrt(nu + eps_root) + eps) + weight_decay p
    u  = mu
    ```

    Args:
      weight_decay: the factor of p in the momentum; unless it is 0, `update` needs the parameters.
      mu_dtype: the dtype in which mu is stored; None for at least float32.

    Reference: Ginsburg et al. 2019, arXiv:1905.11286, algorithm 1.
    """
    decays = not (is_number(weight_decay) and weight_decay == 0)

    def init(p):
        return zeros_like(p, mu_dtype), reductions.total(zeros_like(p, real=True))

    def update(g, slots, p, t):
        mu, nu = slots
        square = reductions.total(abs_sq(g))
        nu = jnp.where(t == 1, square, ema(nu, square, b2))
        normalized = safe_divide(g, safe_sqrt(nu + eps_root) + eps)
        mu = b1 * mu + (normalized + weight_decay * p if decays else normalized)
        return mu, (mu, nu)

    return per_parameter(init, update, ScaleByNovogradState, needs_params=decays)


@transformation
def novograd(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
) -> GradientTransformationExtraArgs:
    """NovoGrad: momentum of gradients, each tensor's divided by its average norm; the memory of momentum alone.

    See `scale_by_novograd` for the formula.

    Args:
      weight_decay: the factor of p in the momentum; unless it is 0, `update` needs the parameters.

    Reference: Ginsburg et al. 2019, arXiv:1905.11286.
    """
    return chain(scale_by_novograd(b1, b2, eps, eps_root, weight_decay), scale_by_lr(learning_rate))
