# SPDX-License-Identifier: Apache-2.0
"""Adan: Nesterov momentum estimated from the differences of successive gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

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


class ScaleByAdanState(NamedTuple):
    """The moving averages of g, its differences and the squared look-ahead, the last g, the number of updates made."""

    m: Updates
    v: Updates
    n: Updates
    g: Updates
    t: jax.Array


@transformation
def scale_by_adan(
    b1: Decay = 0.98, b2: Decay = 0.92, b3: Decay = 0.99, eps: NonNegative = 1e-8, eps_root: NonNegative = 0.0
) -> GradientTransformationExtraArgs:
    """Adan's direction, where d is g minus the g of the step before, and 0 at the first step:

    ```
    m = b1 m + (1 - b1) g             v = b2 v + (1 - b2) d
    n = b3 n + (1 - b3) (g + b2 d)²
    u = (m / (1 - b1^t) + b2 v / (1 - b2^t)) / (sqrt(n / (1 - b3^t) + eps_root) + eps)
    ```

    Args:
      b1, b2, b3: the decays of m, v and n, as in the authors' code; the paper's letters are one minus these.

    Reference: Xie et al. 2022, arXiv:2208.06677, algorithm 1.
    """

    def init(p):
        return zeros_like(p), zeros_like(p), zeros_like(p, real=True), zeros_like(p)

    def shared(t, total):
        of_m, of_v, of_n = (correction(b, t) for b in (b1, b2, b3))
        return t == 1, of_m, b2 * of_v, of_n

    def update(g, slots, p, t, common):
        (m, v, n, previous), (first, of_m, of_v, of_n) = slots, common
        d = jnp.where(first, 0, g - previous)
        m, v, n = ema(m, g, b1), ema(v, d, b2), ema(n, abs_sq(g + b2 * d), b3)
        return safe_divide(of_m * m + of_v * v, safe_sqrt(of_n * n + eps_root) + eps), (m, v, n, g)

    return per_parameter(init, update, ScaleByAdanState, shared=shared, counter="t")


@transformation
def adan(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """Adan: Nesterov's look-ahead and Adam's scaling, without a gradient at another point.

    See `scale_by_adan` for the formula. The weight decay is that of `adamw`, the authors' `no_prox=True`; for the
    paper's proximal form put `add_proximal_decay` in place of `add_decayed_weights` in the chain.

    Args:
      b1, b2, b3: the decays of m, v and n.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Xie et al. 2022, arXiv:2208.06677.
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
