# SPDX-License-Identifier: Apache-2.0
"""D-Adaptation of Adan."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._dadapt import GrowthRate, d_adapted


class DAdaptAdanState(NamedTuple):
    """Adan's m, v, n and last g, the average s, the estimate d, its numerator r, the number of updates made."""

    exp_avg: Updates
    exp_avg_diff: Updates
    exp_avg_sq: Updates
    last_grad: Updates
    grad_sum: Updates
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array


@transformation
def dadapt_adan(
    learning_rate: ScalarOrSchedule = 1.0,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    growth_rate: GrowthRate | None = None,
) -> GradientTransformationExtraArgs:
    """Adan whose learning rate is estimated as in `scale_by_dadapt_adam`, from n instead of nu and b3 instead of b2.

    ```
    w = d learning_rate        delta = g - (g of the step before), 0 at the first step
    m = b1 m + (1 - b1) w g    v = b2 v + (1 - b2) w delta    n = b3 n + (1 - b3) (g + b2 delta)²
    p = p - (m + b2 v) / (sqrt(n) + eps) - w weight_decay p
    ```

    The authors' code for Adan still has the estimate of the first preprint, a difference of two sums.

    Args:
      b1, b2, b3: the decays of m, v and n.
      estim_lr0, growth_rate: see `scale_by_dadapt_adam`.

    References: Defazio and Mishchenko 2023, arXiv:2301.07733; Xie et al. 2022, arXiv:2208.06677 (Adan).
    """

    def moved(g, x, moments, w, t):
        m, v, n, last = moments
        delta = jnp.where(t == 1, 0, g - last)
        m, v, n = ema(m, x, b1), ema(v, w * delta, b2), ema(n, abs_sq(g + b2 * delta), b3)
        return safe_divide(m + b2 * v, safe_sqrt(n) + eps), (m, v, n, g)

    return d_adapted(
        DAdaptAdanState,
        lambda p: (zeros_like(p), zeros_like(p), zeros_like(p, real=True), zeros_like(p), zeros_like(p)),
        lambda g, moments, w: (w * g, safe_sqrt(moments[2]) + eps),
        moved,
        lambda t: learning_rate,
        b3,
        estim_lr0,
        weight_decay,
        growth_rate,
    )
