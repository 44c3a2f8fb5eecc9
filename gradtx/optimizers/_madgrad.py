# SPDX-License-Identifier: Apache-2.0
"""MADGRAD: momentum and dual averaging with cube roots."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import copy_of, zeros_like
from gradtx.numerics._roots import safe_cbrt
from gradtx.numerics._safe import abs_sq, safe_divide
from gradtx.transforms._weight_decay import add_decayed_weights


class MadgradState(NamedTuple):
    """The number of updates made, the weighted sums of |g|² and of g, and the initial parameters."""

    count: jax.Array
    grad_sum_sq: Updates
    s: Updates
    x0: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_madgrad(
    learning_rate: ScalarOrSchedule, momentum: Decay = 0.9, eps: NonNegative = 1e-6
) -> GradientTransformationExtraArgs:
    """MADGRAD without weight decay. The update is complete: it includes the sign and the learning rate.

    ```
    l = (learning_rate + eps) sqrt(t)      v = v + l g²      s = s + l g
    u = (1 - momentum) (p_0 - s / (cbrt(v) + eps) - p)
    ```

    The initial parameter is p_0. `eps` is added to the learning rate as in the authors' code; the paper adds it to the
    cube root only.

    Reference: Defazio and Jelassi 2021, arXiv:2101.11075.
    """

    def init(p):
        return zeros_like(p, real=True), zeros_like(p), copy_of(p)

    def shared(t, total):
        return (learning_rate + eps) * jnp.sqrt(t)

    def update(g, slots, p, t, weight):
        v, s, start = slots
        v, s = v + weight * abs_sq(g), s + weight * g
        z = start - safe_divide(s, safe_cbrt(v) + eps)
        return (1 - momentum) * (z - p), (v, s, start)

    return per_parameter(init, update, MadgradState, shared=shared, needs_params=True)


@transformation
def madgrad(
    learning_rate: ScalarOrSchedule, momentum: Decay = 0.9, weight_decay: NonNegative = 0.0, eps: NonNegative = 1e-6
) -> GradientTransformationExtraArgs:
    """MADGRAD: dual averaging with cube-root scaling, its iterates averaged with weight 1 - momentum.

    See `scale_by_madgrad` for the formula.

    Args:
      weight_decay: weight_decay p is added to the gradient, as L2 regularization.

    Reference: Defazio and Jelassi 2021, arXiv:2101.11075.
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))
