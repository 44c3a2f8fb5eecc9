# SPDX-License-Identifier: Apache-2.0
"""Filters of the gradient, with a state of their own, that come before an optimizer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, Limit, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._ratios import l2_norm
from gradtx.numerics._safe import shrink_factor


class GrokfastState(NamedTuple):
    """The number of updates made, and the moving average of the gradients."""

    count: jax.Array
    ema: Updates


class MarsCorrectionState(NamedTuple):
    """The number of updates made, and the last gradients."""

    count: jax.Array
    previous: Updates


@transformation
def grokfast(
    decay: Decay = 0.98, strength: NonNegative = 2.0, accumulator_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """h = decay h + (1 - decay) g; u = g + strength h: amplifies the slowly varying part of the gradient.

    h starts at the first gradient, as in the authors' code. Put it before the optimizer.

    Args:
      strength: the factor of h, the paper's lambda; 0 leaves gradients unchanged.
      accumulator_dtype: the dtype in which h is stored; None for at least float32.

    Reference: Lee et al. 2024, arXiv:2405.20233 (the variant Grokfast-EMA).
    """

    def update(g, h, p, t):
        h = jnp.where(t == 1, g, ema(h, g, decay))
        return g + strength * h, h

    return per_parameter(lambda p: zeros_like(p, accumulator_dtype), update, GrokfastState)


@transformation
def mars_correction(
    gamma: NonNegative = 0.025,
    b1: Decay = 0.95,
    max_norm: Limit | None = 1.0,
    accumulator_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """MARS's variance-reducing correction of the gradient, to put before any rule with momentum b1:

    ```
    c = g + gamma b1 / (1 - b1) (g - g_before)        u = c min(1, max_norm / ‖c‖)
    ```

    At the first step c = g. g_before is the last gradient, on its own batch (the paper's MARS-approx). The norm is
    taken for each parameter separately, as in the authors' code.

    Args:
      gamma: the strength of the correction; 0 for none, 1 for the full one.
      b1: the momentum of the rule that follows.
      max_norm: the largest norm of c; None for no clipping.
      accumulator_dtype: the dtype in which the last gradient is stored; None for at least float32.

    Reference: Yuan et al. 2024, arXiv:2411.10438.
    """

    def update(g, previous, p, t):
        c = g + gamma * (b1 / (1 - b1)) * jnp.where(t == 1, 0, g - previous)
        if max_norm is not None:
            c = c * shrink_factor(l2_norm(c), max_norm)
        return c, g

    return per_parameter(lambda p: zeros_like(p, accumulator_dtype), update, MarsCorrectionState)
