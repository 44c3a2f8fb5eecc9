# SPDX-License-Identifier: Apache-2.0
"""D-Adaptation of gradient descent with momentum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._distance import inner, larger_estimate
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._dadapt import GrowthRate
from gradtx.transforms._weight_decay import add_decayed_weights


class DAdaptSGDState(NamedTuple):
    """The velocity v, the sum s, the first ‖g‖, the estimate d, its numerator r, and the number of updates made."""

    velocity: Updates
    grad_sum: Updates
    first_norm: jax.Array
    estim_lr: jax.Array
    numerator: jax.Array
    count: jax.Array

    counts_from = {"count": 0}


@transformation
def scale_by_dadapt_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    momentum: Decay = 0.9,
    estim_lr0: Positive = 1e-6,
    *,
    growth_rate: GrowthRate | None = None,
) -> GradientTransformationExtraArgs:
    """D-Adapted gradient descent. The update is complete: it includes the sign and the learning rate.

    ```
    w = d learning_rate / ‖g_1‖        r = r + w <g, s>        s = s + w g
    v = momentum v + w g                                       d = max(d, 2 r / ‖s‖)
    u = -(1 - momentum) v
    ```

    All norms are over all parameters together; g_1 is the first gradient that is not 0. The paper writes the same
    steps as an average of the parameters, p = momentum p + (1 - momentum) (p_1 - s), which loses more to rounding.

    Args:
      estim_lr0: the initial d, which should be below the distance to the solution.
      growth_rate: the largest factor by which d may grow in a step; None for no limit.

    Reference: Defazio and Mishchenko 2023, arXiv:2301.07733, algorithm 4.
    """

    def measure(g, slots, p, t, memory):
        _, s = slots
        return jnp.sum(abs_sq(g)), inner(g, s), jnp.sum(abs_sq(s))

    def shared(t, total, memory):
        of_g, along, of_s = total
        d, norm = memory["estim_lr"], memory["first_norm"]
        norm = jnp.where(norm > 0, norm, safe_sqrt(of_g))
        w = safe_divide(d * learning_rate, norm)
        numerator = memory["numerator"] + w * along
        # ‖s + w g‖ without a second pass over the parameters; rounding must not make its square negative.
        size = safe_sqrt(jnp.maximum(of_s + 2 * w * along + w**2 * of_g, 0))
        larger = larger_estimate(d, 2 * numerator, size, growth_rate)
        return w, {"first_norm": norm, "estim_lr": larger, "numerator": numerator}

    def update(g, slots, p, t, w):
        v, s = slots
        v = momentum * v + w * g
        return -(1 - momentum) * v, (v, s + w * g)

    return per_parameter(
        lambda p: (zeros_like(p), zeros_like(p)),
        update,
        DAdaptSGDState,
        measure=measure,
        shared=shared,
        memory=lambda: {"first_norm": 0.0, "estim_lr": estim_lr0, "numerator": 0.0},
    )


@transformation
def dadapt_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    momentum: Decay = 0.9,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    growth_rate: GrowthRate | None = None,
) -> GradientTransformationExtraArgs:
    """Gradient descent whose learning rate D-Adaptation estimates; `learning_rate` multiplies the estimate.

    See `scale_by_dadapt_sgd` for the formula.

    Args:
      estim_lr0, growth_rate: see `scale_by_dadapt_sgd`.
      weight_decay: weight_decay p is added to the gradient, as L2 regularization.

    Reference: Defazio and Mishchenko 2023, arXiv:2301.07733.
    """
    return chain(
        add_decayed_weights(weight_decay),
        scale_by_dadapt_sgd(learning_rate, momentum, estim_lr0, growth_rate=growth_rate),
    )
