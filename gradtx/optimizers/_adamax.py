# SPDX-License-Identifier: Apache-2.0
"""AdaMax: Adam with the infinity norm of past gradients in place of the root of their mean square."""

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import safe_divide
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


@transformation
def scale_by_adamax(b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8) -> GradientTransformationExtraArgs:
    """AdaMax's direction:

    ```
    mu = b1 mu + (1 - b1) g           nu = max(b2 nu, |g| + eps)
    u  = mu / (1 - b1^t) / nu         (0 where nu is 0)
    ```

    Args:
      eps: added to |g| inside the maximum, as PyTorch does; the paper has none.

    Reference: Kingma and Ba 2014, arXiv:1412.6980, algorithm 2.
    """

    def shared(t, total):
        return correction(b1, t)

    def update(g, slots, p, t, of_mu):
        mu, nu = slots
        mu, nu = ema(mu, g, b1), jnp.maximum(b2 * nu, jnp.abs(g) + eps)
        return safe_divide(of_mu * mu, nu), (mu, nu)

    return per_parameter(lambda p: (zeros_like(p), zeros_like(p, real=True)), update, ScaleByAdamState, shared=shared)


@transformation
def adamax(
    learning_rate: ScalarOrSchedule, b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8
) -> GradientTransformationExtraArgs:
    """AdaMax: Adam in the limit of the infinity norm.

    See `scale_by_adamax` for the formula.

    Args:
      eps: added to |g| inside the maximum, see `scale_by_adamax`.

    Reference: Kingma and Ba 2014, arXiv:1412.6980, section 7.1.
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_lr(learning_rate))


@transformation
def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """`adamax` with the decoupled weight decay of `adamw`: p = p - learning_rate (u + weight_decay p).

    Args:
      eps: added to |g| inside the maximum, see `scale_by_adamax`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Loshchilov and Hutter 2017, arXiv:1711.05101.
    """
    return chain(scale_by_adamax(b1, b2, eps), add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate))
