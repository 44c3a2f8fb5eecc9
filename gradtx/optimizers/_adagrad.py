# SPDX-License-Identifier: Apache-2.0
"""AdaGrad: a learning rate for each element that shrinks with the sum of its squared gradients."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._safe import abs_sq, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr


class ScaleByRssState(NamedTuple):
    """The sum of |g|² over all steps."""

    sum_of_squares: Updates


@transformation
def scale_by_rss(
    initial_accumulator_value: NonNegative = 0.1, eps: NonNegative = 1e-7, *, eps_in_sqrt: bool = True
) -> GradientTransformationExtraArgs:
    """s = s + g²; u = g / sqrt(s + eps), or g / (sqrt(s) + eps); 0 where s is 0.

    Args:
      initial_accumulator_value: the initial value of s.
      eps_in_sqrt: whether eps is added inside the root or outside.
    """

    def update(g, s, p, t):
        s = s + abs_sq(g)
        root = safe_sqrt(s + eps) if eps_in_sqrt else safe_sqrt(s) + eps
        return jnp.where(s > 0, g / jnp.where(s > 0, root, 1), 0), s

    return per_parameter(lambda p: zeros_like(p, real=True) + initial_accumulator_value, update, ScaleByRssState)


@transformation
def adagrad(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> GradientTransformationExtraArgs:
    """AdaGrad: p = p - learning_rate * g / sqrt(s + eps), where s is the sum of all squared gradients.

    Args:
      eps_in_sqrt: whether eps is added inside the root or outside.

    Reference: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods for online learning".
    """
    return chain(scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt), scale_by_lr(learning_rate))
