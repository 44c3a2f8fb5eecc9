# SPDX-License-Identifier: Apache-2.0
"""FTRL-proximal: sparse online learning."""

from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import NonNegative, Range
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._roots import safe_power
from gradtx.numerics._safe import abs_sq, safe_divide

NonPositive = Annotated[Any, Range(high=0.0, example=-0.5)]


class FtrlState(NamedTuple):
    """The sum n of |g|², and the sum z of the gradients minus their proximal terms."""

    accumulator: Updates
    linear: Updates


@transformation
def ftrl(
    learning_rate: ScalarOrSchedule = 0.001,
    learning_rate_power: NonPositive = -0.5,
    initial_accumulator_value: NonNegative = 0.1,
    l1: NonNegative = 0.0,
    l2: NonNegative = 0.0,
    l2_shrinkage: NonNegative = 0.0,
    beta: NonNegative = 0.0,
) -> GradientTransformationExtraArgs:
    """FTRL-proximal (follow the regularized leader) for sparse linear models, in TensorFlow's form:

    ```
    n' = n + g²      z = z + g + 2 l2_shrinkage p - (n'^-power - n^-power) / learning_rate p
    p  = (sign(z) l1 - z) / ((beta + n'^-power) / learning_rate + 2 l2)   where |z| > l1, else 0
    ```

    Parameters depend on the state alone: they move towards 0 at the first step, and one whose gradient has always been
    0 becomes 0.

    Args:
      learning_rate_power: the exponent `power` of n in the learning rate; -0.5 in the paper, 0 for a constant rate.
      l1: the factor of |p| in the objective, which makes small parameters 0.
      l2: the factor of |p|² in the objective, half of the paper's lambda_2.
      l2_shrinkage: the factor of an L2 penalty that is added to the gradient in z, but not to its square in n.
      beta: the paper's beta; Keras and TensorFlow have 0 by default.

    Reference: McMahan et al. 2013, "Ad click prediction: a view from the trenches".
    """

    def root(n):
        return safe_power(n, -learning_rate_power)

    def init(p):
        return zeros_like(p, real=True) + initial_accumulator_value, zeros_like(p)

    def update(g, slots, p, t):
        n, z = slots
        new_n = n + abs_sq(g)
        sigma = (root(new_n) - root(n)) / learning_rate  # type: ignore[operator]  # a number in here
        z = z + g + 2 * l2_shrinkage * p - sigma * p
        over = jnp.abs(z) > l1
        far = jnp.where(over, z, 1)  # away from 0, so that the absolute value has a derivative
        shrunk = far * (1 - l1 / jnp.abs(far))
        curvature = (beta + root(new_n)) / learning_rate + 2 * l2
        return jnp.where(over, safe_divide(-shrunk, curvature), 0) - p, (new_n, z)

    return per_parameter(init, update, FtrlState, needs_params=True)
