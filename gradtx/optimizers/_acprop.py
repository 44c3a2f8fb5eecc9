# SPDX-License-Identifier: Apache-2.0
"""ACProp: the gradient divided by the root of the centered second moment of the steps before."""

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._adabelief import ScaleByBeliefState
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


@transformation
def scale_by_acprop(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-16, eps_root: NonNegative = 1e-16
) -> GradientTransformationExtraArgs:
    """ACProp's direction; the denominator has nu from before this step, and 1 for its root at the first step:

    ```
    u  = g / (sqrt(nu / (1 - b2^(t-1))) + eps)
    mu = b1 mu + (1 - b1) g           nu = b2 nu + (1 - b2) (g - mu)² + eps_root
    ```

    Args:
      eps_root: added to nu at each step, so that it accumulates to eps_root / (1 - b2).

    Reference: Zhuang et al. 2021, arXiv:2110.05454, algorithm 2.
    """

    def shared(t, total):
        return t == 1, correction(b2, jnp.maximum(t - 1, 1))

    def update(g, slots, p, t, common):
        (mu, nu), (first, of_nu) = slots, common
        u = safe_divide(g, jnp.where(first, 1, safe_sqrt(of_nu * nu)) + eps)
        mu = ema(mu, g, b1)
        return u, (mu, ema(nu, abs_sq(g - mu), b2) + eps_root)

    return per_parameter(lambda p: (zeros_like(p), zeros_like(p, real=True)), update, ScaleByBeliefState, shared=shared)


@transformation
def acprop(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """ACProp: AdaBelief with a denominator that does not contain this step's gradient ("asynchronous").

    See `scale_by_acprop` for the formula. The weight decay is decoupled.

    Args:
      eps_root: added to nu at each step, see `scale_by_acprop`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Zhuang et al. 2021, arXiv:2110.05454.
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
