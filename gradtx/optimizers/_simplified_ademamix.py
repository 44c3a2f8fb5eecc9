# SPDX-License-Identifier: Apache-2.0
"""Simplified AdEMAMix: one sum of gradients, and the current gradient with a weight of its own."""

from typing import NamedTuple

import jax

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """The number of updates made, the sum of gradients and the moving average of |g|²."""

    t: jax.Array
    m: Updates
    n: Updates


@transformation
def scale_by_simplified_ademamix(
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
) -> GradientTransformationExtraArgs:
    """The direction of simplified AdEMAMix:

    ```
    m = b1 m + g       n = b2 n + (1 - b2) g²
    u = (m + alpha g) / (sqrt(n / (1 - b2^t) + eps_root) + eps)
    ```

    m is a sum and not an average: the learning rate is about 1 - b1 times Adam's.

    Args:
      alpha: the weight of the current gradient; large for small batches.

    Reference: Morwani et al. 2025, arXiv:2502.02431.
    """

    def init(p):
        return zeros_like(p), zeros_like(p, real=True)

    def shared(t, total):
        return correction(b2, t)

    def update(g, slots, p, t, of_n):
        m, n = b1 * slots[0] + g, ema(slots[1], abs_sq(g), b2)
        return safe_divide(m + alpha * g, safe_sqrt(of_n * n + eps_root) + eps), (m, n)

    return per_parameter(init, update, ScaleBySimplifiedAdEMAMixState, shared=shared, counter="t")


@transformation
def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """Simplified AdEMAMix: AdEMAMix with one sum of gradients in place of two averages, and decoupled weight decay.

    See `scale_by_simplified_ademamix` for the formula.

    Args:
      alpha: the weight of the current gradient; large for small batches.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Morwani et al. 2025, arXiv:2502.02431.
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
