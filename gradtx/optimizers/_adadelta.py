# SPDX-License-Identifier: Apache-2.0
"""AdaDelta: steps with the units of the parameter, which need no learning rate."""

from typing import NamedTuple

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByAdaDeltaState(NamedTuple):
    """The moving averages of |g|² and |u|²."""

    e_g: Updates
    e_x: Updates


@transformation
def scale_by_adadelta(rho: Decay = 0.9, eps: NonNegative = 1e-6) -> GradientTransformationExtraArgs:
    """AdaDelta's direction:

    ```
    e_g = rho e_g + (1 - rho) g²
    u   = g sqrt(e_x + eps) / sqrt(e_g + eps)
    e_x = rho e_x + (1 - rho) u²
    ```

    Args:
      rho: the decay of both averages.
      eps: added inside both roots. It sets the size of the first steps, since e_x starts at 0; with 0 nothing moves.

    Reference: Zeiler 2012, arXiv:1212.5701, algorithm 1.
    """

    def update(g, slots, p, t):
        e_g, e_x = slots
        e_g = ema(e_g, abs_sq(g), rho)
        u = safe_divide(safe_sqrt(e_x + eps) * g, safe_sqrt(e_g + eps))
        return u, (e_g, ema(e_x, abs_sq(u), rho))

    return per_parameter(lambda p: (zeros_like(p, real=True), zeros_like(p, real=True)), update, ScaleByAdaDeltaState)


@transformation
def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """AdaDelta: p = p - learning_rate u, with the u of `scale_by_adadelta`.

    Args:
      learning_rate: the factor of u; None for 1, as in the paper.
      rho, eps: see `scale_by_adadelta`.
      weight_decay: weight_decay p is added to the gradient, as L2 regularization, as in PyTorch.
      weight_decay_mask: where to decay, see `add_decayed_weights`.

    Reference: Zeiler 2012, arXiv:1212.5701.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_lr(1.0 if learning_rate is None else learning_rate),
    )
