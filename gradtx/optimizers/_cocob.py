# SPDX-License-Identifier: Apache-2.0
"""COCOB: each element bets on a coin whose outcomes are the negative gradients."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._safe import safe_divide
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class COCOBState(NamedTuple):
    """The initial parameters, the sum of -g, the largest |g|, the sum of |g|, and the reward."""

    init_particles: Params
    cumulative_gradients: Updates
    scale: Updates
    subgradients: Updates
    reward: Updates


@transformation
def scale_by_cocob(alpha: Positive = 100.0, eps: NonNegative = 1e-8) -> GradientTransformationExtraArgs:
    """COCOB-Backprop, element by element. The update is complete: it descends by itself, without a learning rate.

    ```
    L = max(L, |g|)    G = G + |g|    theta = theta - g    R = max(R - (p - p_1) g, 0)
    u = p_1 + theta / (L max(G + L, alpha L)) (L + R) - p
    ```

    The initial parameter is p_1.

    Args:
      alpha: the larger it is, the smaller are the first steps.
      eps: the initial value of L.

    Reference: Orabona and Tommasi 2017, arXiv:1705.07795, algorithm 2.
    """

    def init(p):
        return jnp.copy(p), zeros_like(p), zeros_like(p, real=True) + eps, *(zeros_like(p, real=True) for _ in range(2))

    def update(g, slots, p, t):
        first, theta, largest, total, reward = slots
        largest, total, theta = jnp.maximum(largest, jnp.abs(g)), total + jnp.abs(g), theta - g
        reward = jnp.maximum(reward - jnp.real((p - first) * jnp.conj(g)), 0)
        # (L + R) / L first: in the denominator, L times the maximum is a square, which underflows for small gradients.
        bet = safe_divide(theta, jnp.maximum(total + largest, alpha * largest)) * (1 + safe_divide(reward, largest))
        return first + bet - p, (first, theta, largest, total, reward)

    return per_parameter(init, update, COCOBState, needs_params=True)


@transformation
def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: Positive = 100.0,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """COCOB: gradient descent by coin betting, without a learning rate.

    See `scale_by_cocob` for the formula.

    Args:
      learning_rate: the factor of the gradients. The update does not depend on their scale, so a constant changes
        nothing as long as they are larger than eps; a schedule weights the steps.
      alpha, eps: see `scale_by_cocob`.
      weight_decay: weight_decay p is added to the gradient, as L2 regularization.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Orabona and Tommasi 2017, arXiv:1705.07795.
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )
