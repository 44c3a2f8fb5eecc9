# SPDX-License-Identifier: Apache-2.0
"""Rprop: a step size for each element, which grows while the gradient keeps its sign and is cut when that changes."""

from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Fraction, Limit, NonNegative, Range, is_number
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.transforms._scaling import scale

Growth = Annotated[Any, Range(low=1.0, example=1.2)]


class ScaleByRpropState(NamedTuple):
    """The step size of each element, and the last updates."""

    step_sizes: Updates
    prev_updates: Updates


@transformation
def scale_by_rprop(
    learning_rate: ScalarOrSchedule,
    eta_minus: Fraction = 0.5,
    eta_plus: Growth = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: Limit = 50.0,
) -> GradientTransformationExtraArgs:
    """Rprop's direction, with a = sign(g) sign(last u), element by element:

    ```
    size = size * eta_plus if a > 0, size * eta_minus if a < 0, size if a = 0
    size = min(max(size, min_step_size), max_step_size)
    u = 0 if a < 0, else sign(g) size
    ```

    After a change of sign there is no step, and the next sign is not compared with it, so that a size is not cut twice
    (iRprop-, as in PyTorch). Only full-batch gradients are of use: the signs of minibatch gradients are mostly noise.

    Args:
      learning_rate: the initial step size of each element.
      eta_minus, eta_plus: the factors of a step size when the sign changes and when it stays.
      min_step_size, max_step_size: the bounds of the step sizes.

    Raises:
      TypeError: for complex parameters, which have no sign.

    References: Riedmiller and Braun 1993; Igel and Hüsken 2000, "Improving the Rprop learning algorithm".
    """
    if is_number(min_step_size) and is_number(max_step_size) and min_step_size > max_step_size:
        raise ValueError(
            f"scale_by_rprop: min_step_size must be at most max_step_size, got {min_step_size} and {max_step_size}"
        )

    def init(p):
        if jnp.iscomplexobj(p):
            raise TypeError(f"scale_by_rprop: complex parameters have no sign, got one of dtype {p.dtype}")
        return zeros_like(p) + learning_rate, zeros_like(p)  # type: ignore[operator]  # a number inside a rule

    def update(g, slots, p, t):
        sizes, last = slots
        agreement = jnp.sign(g) * jnp.sign(last)
        sizes = sizes * jnp.where(agreement > 0, eta_plus, jnp.where(agreement < 0, eta_minus, 1))
        sizes = jnp.clip(sizes, min_step_size, max_step_size)
        u = jnp.where(agreement < 0, 0, jnp.sign(g) * sizes)
        return u, (sizes, u)

    return per_parameter(init, update, ScaleByRpropState)


@transformation
def rprop(
    learning_rate: ScalarOrSchedule,
    eta_minus: Fraction = 0.5,
    eta_plus: Growth = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: Limit = 50.0,
) -> GradientTransformationExtraArgs:
    """Rprop: p = p - u, with the u of `scale_by_rprop`. For full batches only.

    Args:
      learning_rate: the initial step size of each element.
      eta_minus, eta_plus, min_step_size, max_step_size: see `scale_by_rprop`.

    Reference: Riedmiller and Braun 1993, "A direct adaptive method for faster backpropagation learning".
    """
    return chain(scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size), scale(-1.0))
