# SPDX-License-Identifier: Apache-2.0
"""Averaged stochastic gradient descent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._evaluation import begun, eval_from, set_aside
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import copy_of


class ASGDState(NamedTuple):
    """The number of updates made, and the average of the parameters, which `eval_params` returns."""

    count: jax.Array
    ax: Updates

    counts_from = {"count": 0}

    def eval_params(self, params: Params) -> Params:
        return eval_from(lambda p, ax: ax, params, self.ax)


@transformation
def asgd(
    learning_rate: ScalarOrSchedule = 0.01,
    lambd: NonNegative = 1e-4,
    alpha: NonNegative = 0.75,
    t0: NonNegative = 1e6,
    weight_decay: NonNegative = 0.0,
) -> GradientTransformationExtraArgs:
    """Descent with a decaying learning rate and an average ax of the parameters, for evaluation, from step t0 on:

    ```
    eta = learning_rate / (1 + lambd learning_rate (t - 1))^alpha
    p   = p - eta (g + (weight_decay + lambd) p)
    ax  = ax + (p - ax) / max(1, t - 1 - t0)
    ```

    Validate and save ax: `eval_params(state, params)`. Up to step t0 + 2 it is p.

    Args:
      lambd: how fast the learning rate eta decays; it is also added to the weight decay.
      alpha: the exponent with which eta decays.
      t0: the number of updates before averaging starts.
      weight_decay: weight_decay p is added to the gradient, as L2 regularization.

    References: Polyak and Juditsky 1992; Bottou 2010 (eta); the settings are PyTorch's.
    """

    def shared(t, total):
        rate = learning_rate / (1 + lambd * learning_rate * (t - 1)) ** alpha
        return rate, 1 / jnp.maximum(1, t - 1 - t0)

    def update(g, ax, p, t, common):
        rate, weight = common
        ax = begun(ax, p)
        u = -rate * (g + (weight_decay + lambd) * p)
        return u, ax + weight * (p + u - ax)

    def idle(ax, t, memory):
        return set_aside(ax, t == 1)

    return per_parameter(copy_of, update, ASGDState, shared=shared, needs_params=True, idle=idle)
