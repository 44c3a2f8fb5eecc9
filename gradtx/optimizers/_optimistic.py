# SPDX-License-Identifier: Apache-2.0
"""Optimistic descent: steps with a guess of the next gradient, for games and saddle points."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative, Real
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._scaling import scale, scale_by_lr


class ScaleByOptimisticGradientState(NamedTuple):
    """Whether no update was made yet, and the last gradient."""

    is_initial_step: jax.Array
    previous_gradient: Updates


@transformation
def scale_by_optimistic_gradient(
    alpha: Real = 1.0, beta: Real = 1.0, *, from_zero: bool = False
) -> GradientTransformationExtraArgs:
    """u = (alpha + beta) g - beta g', where g' is the previous gradient.

    Args:
      alpha, beta: the factors of the gradient and of its change since the step before.
      from_zero: True for g' = 0 at the first step, as in optimistic mirror descent (Daskalakis et al.
        2017, arXiv:1711.00141); False for g' = g, as if the step before had not moved the parameters.

    Reference: Mokhtari, Ozdaglar and Pattathil 2019, arXiv:1901.08511 (generalized OGDA).
    """

    def shared(t, total, memory):
        return memory["is_initial_step"], {"is_initial_step": jnp.asarray(False)}

    def update(g, previous, p, t, first):
        before = previous if from_zero else jnp.where(first, g, previous)
        return (alpha + beta) * g - beta * before, g

    return per_parameter(
        zeros_like,
        update,
        ScaleByOptimisticGradientState,
        shared=shared,
        memory=lambda: {"is_initial_step": True},
    )


@transformation
def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule, alpha: Real = 1.0, beta: Real = 1.0
) -> GradientTransformationExtraArgs:
    """p = p - learning_rate ((alpha + beta) g - beta g'), where g' is the previous gradient, at first g itself.

    Args:
      alpha, beta: the factors of the gradient and of its change since the step before.

    Reference: Mokhtari, Ozdaglar and Pattathil 2019, arXiv:1901.08511.
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_lr(learning_rate))


@transformation
def optimistic_adam(
    learning_rate: ScalarOrSchedule,
    optimism: Real | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    *,
    nesterov: bool = True,
    from_zero: bool = True,
) -> GradientTransformationExtraArgs:
    """p = p - (learning_rate + optimism) d + optimism d', with Adam's direction d and the one before, d' (at first 0).

    Args:
      optimism: the factor of the change d - d'; None for the learning rate, as in the paper.
      nesterov: False in the paper, True in Optax.
      from_zero: False takes d for d' at the first step, as Optax does, which halves that step.

    Reference: Daskalakis et al. 2017, arXiv:1711.00141, algorithm 1.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(
            learning_rate, learning_rate if optimism is None else optimism, from_zero=from_zero
        ),
        scale(-1.0),
    )


@transformation
def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Real = 1.0,
    beta: Real = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    nesterov: bool = True,
    from_zero: bool = True,
) -> GradientTransformationExtraArgs:
    """`optimistic_adam` with the learning rate as a factor: p = p - learning_rate ((alpha + beta) d - beta d').

    Args:
      alpha, beta: the factors of Adam's direction d and of its change since the step before.
      nesterov, from_zero: see `optimistic_adam`.

    Reference: Daskalakis et al. 2017, arXiv:1711.00141, algorithm 1.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta, from_zero=from_zero),
        scale_by_lr(learning_rate),
    )
