# SPDX-License-Identifier: Apache-2.0
"""Polyak's step size: the distance of the loss from its minimum over the squared norm of the gradient."""

from typing import Literal

import jax.numpy as jnp

from gradtx.core._combine import chain, identity
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Bound, Limit, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.numerics._safe import abs_sq, safe_divide
from gradtx.transforms._scaling import scale_by_lr

Variant = Literal["sps", "sps+"]


@transformation
def scale_by_polyak(
    f_min: Bound = 0.0, max_learning_rate: Limit = 1.0, eps: NonNegative = 0.0, variant: Variant = "sps"
) -> GradientTransformationExtraArgs:
    """u = g min((value - f_min) / (‖g‖² + eps), max_learning_rate), with the norm over all gradients together.

    `update` needs the function's value where the gradient was taken: `update(g, state, params, value=value)`.

    Args:
      f_min: the minimum of the function, or a lower bound of it.
      max_learning_rate: the largest factor of g.
      variant: for a negative value - f_min, "sps+" makes no step; "sps" steps along +g.

    References: Loizou et al. 2020, arXiv:2002.10542; Garrigos, Gower and Schaipp 2023, arXiv:2307.14528 (sps+).
    """

    def measure(g, slots, p, t):
        return jnp.sum(abs_sq(g))

    def shared(t, total, value):
        if jnp.ndim(value) != 0:
            raise ValueError(f"scale_by_polyak: value must be a scalar, got shape {jnp.shape(value)}")
        gap = value - f_min if variant == "sps" else jnp.maximum(value - f_min, 0)
        return jnp.minimum(safe_divide(gap, total + eps), max_learning_rate)

    def update(g, slots, p, t, step):
        return step * g, slots

    return per_parameter(None, update, measure=measure, shared=shared, needs=("value",))


@transformation
def polyak_sgd(
    max_learning_rate: Limit = 1.0,
    scaling: NonNegative = 1.0,
    f_min: Bound = 0.0,
    eps: NonNegative = 0.0,
    variant: Variant = "sps",
) -> GradientTransformationExtraArgs:
    """p = p - scaling * min((value - f_min) / (‖g‖² + eps), max_learning_rate) g.

    Args:
      max_learning_rate, f_min, variant: see `scale_by_polyak`, also for the `value` that `update` needs.
      scaling: the factor of the step, a number or a schedule; 1/c for the constant c of the paper.

    Reference: Loizou et al. 2020, arXiv:2002.10542.
    """
    stages = chain(scale_by_polyak(f_min, max_learning_rate, eps, variant), scale_by_lr(scaling))
    # The outer chain puts the count of a scheduled scaling where Optax's checkpoints have it.
    return chain(stages, identity())
