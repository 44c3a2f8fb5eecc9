# SPDX-License-Identifier: Apache-2.0
"""D-Adaptation of Lion."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.optimizers._dadapt import GrowthRate, d_adapted


class DAdaptLionState(NamedTuple):
    """The averages m and s, the estimate d, its numerator r, and the number of updates made."""

    exp_avg: Updates
    grad_sum: Updates
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array

    counts_from = {"count": 0}


@transformation
def dadapt_lion(
    learning_rate: ScalarOrSchedule = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    growth_rate: GrowthRate | None = None,
) -> GradientTransformationExtraArgs:
    """Lion whose learning rate is estimated as in `scale_by_dadapt_adam`, from signs instead of gradients.

    ```
    w = d learning_rate        x = sign(b1 m + (1 - b1) g)          m = b2 m + (1 - b2) w g
    r = c r + (1 - c) w <x, s>        s = c s + (1 - c) w x         c = sqrt(b2)
    d = max(d, r / ((1 - c) ‖s‖_1))
    p = p - w (x + weight_decay p)
    ```

    No paper defines it: this is the authors' code. As the g in x is not multiplied by w, m hardly counts where w is
    small; with w = 1, this is Lion.

    Args:
      estim_lr0, growth_rate: see `scale_by_dadapt_adam`.

    References: Defazio and Mishchenko 2023, arXiv:2301.07733; Chen et al. 2023, arXiv:2302.06675 (Lion).
    """
    return d_adapted(
        DAdaptLionState,
        lambda p: (zeros_like(p), zeros_like(p)),
        lambda g, moments, w: (w * jnp.sign(ema(moments[0], g, b1)), 1.0),
        lambda g, x, moments, w, t: (x, (ema(moments[0], w * g, b2),)),
        lambda t: learning_rate,
        b2,
        estim_lr0,
        weight_decay,
        growth_rate,
    )
