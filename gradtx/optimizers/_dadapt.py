# SPDX-License-Identifier: Apache-2.0
"""D-Adaptation, where the learning rate is an estimate of the distance to the solution: its general form, and Adam."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative, Positive, Range
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, one_minus_power, zeros_like
from gradtx.numerics._distance import inner, larger_estimate
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt

GrowthRate = Annotated[Any, Range(low=1.0, endless=True, example=1.5)]


class DAdaptAdamWState(NamedTuple):
    """The averages mu, nu and s, the estimate d, its numerator r, and the number of updates made."""

    exp_avg: Updates
    exp_avg_sq: Updates
    grad_sum: Updates
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array

    counts_from = {"count": 0}


def pair_of(name: str, betas: Any) -> tuple:
    """The two decays of an optimizer that takes them as a pair."""
    if not (isinstance(betas, tuple | list) and len(betas) == 2):
        raise ValueError(f"{name}: betas must be a pair of numbers, got {betas!r}")
    return tuple(betas)


def bias_corrected(learning_rate: Any, b1: Any, b2: Any, t: jax.Array) -> jax.Array:
    """The learning rate times the corrections that both of Adam's averages need for their start at zero."""
    return learning_rate * jnp.sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)


def d_adapted(
    state: type,
    init: Callable[..., Any],
    sensed: Callable[..., Any],
    moved: Callable[..., Any],
    rate: Callable[..., Any],
    decay: Decay,
    estim_lr0: Positive,
    weight_decay: NonNegative,
    growth_rate: GrowthRate | None,
) -> GradientTransformationExtraArgs:
    """D-Adaptation of a rule on gradients weighted by w = d rate(t), where x is g or what the rule makes of it:

    ```
    r = c r + (1 - c) <w x, s / D>          s = c s + (1 - c) w x          c = sqrt(decay)
    d = max(d, r / ((1 - c) ‖s‖_1))
    ```

    `sensed(g, moments, w)` returns w x and D, `moved(g, w x, moments, w, t)` the step and the new moments.
    """

    def memory():
        return {"estim_lr": estim_lr0, "numerator_weighted": 0.0}

    def measure(g, slots, p, t, memory):
        *moments, s = slots
        w = memory["estim_lr"] * rate(t)
        x, scale = sensed(g, moments, w)
        return inner(x, safe_divide(s, scale)), jnp.sum(jnp.abs(ema(s, x, decay**0.5)))

    def shared(t, total, memory):
        d, c = memory["estim_lr"], decay**0.5
        numerator = ema(memory["numerator_weighted"], total[0], c)
        larger = larger_estimate(d, numerator, (1 - c) * total[1], growth_rate)
        return d * rate(t), {"estim_lr": larger, "numerator_weighted": numerator}

    def update(g, slots, p, t, w):
        *moments, s = slots
        x, _ = sensed(g, moments, w)
        step, moments = moved(g, x, moments, w, t)
        return -(step + w * weight_decay * p), (*moments, ema(s, x, decay**0.5))

    return per_parameter(init, update, state, measure=measure, shared=shared, memory=memory, needs_params=True)


@transformation
def scale_by_dadapt_adam(
    learning_rate: ScalarOrSchedule = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    bias_correction: bool = True,
    growth_rate: GrowthRate | None = None,
) -> GradientTransformationExtraArgs:
    """D-Adapted Adam. The update is complete: it includes the sign, the learning rate and the weight decay.

    ```
    w = d learning_rate sqrt(1 - b2^t) / (1 - b1^t)          c = sqrt(b2)
    r = c r + (1 - c) w <g, s / (sqrt(nu) + eps)>            s = c s + (1 - c) w g
    mu = b1 mu + (1 - b1) w g                                nu = b2 nu + (1 - b2) g²
    u = -mu / (sqrt(nu) + eps) - w weight_decay p            d = max(d, r / ((1 - c) ‖s‖_1))
    ```

    The formula of r has nu from before the step, as in the authors' code; in the paper it is from after the step.

    Args:
      estim_lr0: the initial d, which should be below the distance to the solution.
      bias_correction: False leaves the factor sqrt(1 - b2^t) / (1 - b1^t) out of w, as the paper does.
      growth_rate: the largest factor by which d may grow in a step; None for no limit.

    Reference: Defazio and Mishchenko 2023, arXiv:2301.07733, algorithm 5.
    """

    def rate(t):
        return bias_corrected(learning_rate, b1, b2, t) if bias_correction else learning_rate

    def moved(g, x, moments, w, t):
        mu, nu = ema(moments[0], x, b1), ema(moments[1], abs_sq(g), b2)
        return safe_divide(mu, safe_sqrt(nu) + eps), (mu, nu)

    return d_adapted(
        DAdaptAdamWState,
        lambda p: (zeros_like(p), zeros_like(p, real=True), zeros_like(p)),
        lambda g, moments, w: (w * g, safe_sqrt(moments[1]) + eps),
        moved,
        rate,
        b2,
        estim_lr0,
        weight_decay,
        growth_rate,
    )


@transformation
def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    bias_correction: bool = True,
    growth_rate: GrowthRate | None = None,
) -> GradientTransformationExtraArgs:
    """AdamW whose learning rate D-Adaptation estimates; `learning_rate` multiplies the estimate.

    See `scale_by_dadapt_adam` for the formula.

    Args:
      betas: the pair of b1 and b2.
      estim_lr0, bias_correction, growth_rate: see `scale_by_dadapt_adam`.

    Reference: Defazio and Mishchenko 2023, arXiv:2301.07733.
    """
    b1, b2 = pair_of("dadapt_adamw", betas)
    return scale_by_dadapt_adam(
        learning_rate, b1, b2, eps, estim_lr0, weight_decay, bias_correction=bias_correction, growth_rate=growth_rate
    )
