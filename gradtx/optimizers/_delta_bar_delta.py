# SPDX-License-Identifier: Apache-2.0
"""Delta-bar-delta: a learning rate for each weight, from the signs of its gradients."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, Fraction, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.transforms._scaling import scale


class ScaleByDeltaBarDeltaState(NamedTuple):
    """The learning rate of each weight, and the moving average of its gradients."""

    rate: Updates
    average: Updates


@transformation
def scale_by_delta_bar_delta(
    initial_rate: NonNegative = 0.01, kappa: NonNegative = 1e-3, phi: Fraction = 0.1, theta: Decay = 0.7
) -> GradientTransformationExtraArgs:
    """The stage of `delta_bar_delta`: u = rate g, with the rate of its formula.

    Args:
      initial_rate: the initial value of each rate.
      kappa, phi, theta: see `delta_bar_delta`.

    Reference: Jacobs 1988, "Increased rates of convergence through learning rate adaptation".
    """

    def init(p):
        return zeros_like(p, real=True) + initial_rate, zeros_like(p)

    def update(g, slots, p, t):
        rate, average = slots
        agreement = jnp.real(jnp.conj(average) * g)
        rate = jnp.where(agreement > 0, rate + kappa, jnp.where(agreement < 0, rate * (1 - phi), rate))
        return rate * g, (rate, ema(average, g, theta))

    return per_parameter(init, update, ScaleByDeltaBarDeltaState)


@transformation
def delta_bar_delta(
    learning_rate: ScalarOrSchedule, kappa: NonNegative = 1e-3, phi: Fraction = 0.1, theta: Decay = 0.7
) -> GradientTransformationExtraArgs:
    """Full-batch descent with a learning rate for each element, raised by a constant and cut by a factor:

    ```
    rate = rate + kappa where a g > 0, rate (1 - phi) where a g < 0, with a before its update
    p    = p - rate g      a = theta a + (1 - theta) g
    ```

    The signs of minibatch gradients are mostly noise, on which the rates shrink.

    Args:
      learning_rate: the initial value of each rate.
      kappa: the amount by which a rate is raised.
      phi: the fraction by which a rate is cut.
      theta: the decay of a, the moving average of g.

    Reference: Jacobs 1988, "Increased rates of convergence through learning rate adaptation".
    """
    return chain(scale_by_delta_bar_delta(learning_rate, kappa, phi, theta), scale(-1.0))
