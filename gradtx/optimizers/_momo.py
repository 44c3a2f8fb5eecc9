# SPDX-License-Identifier: Apache-2.0
"""MoMo: momentum and Adam with a step size from an averaged model of the loss."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Bound, Decay, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, one_minus_power, zeros_like
from gradtx.numerics._distance import inner
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt


class MomoState(NamedTuple):
    """The averages of g, of the value and of <g, p>, the lower bound of the value, the number of updates made."""

    exp_avg: Updates
    barf: jax.Array
    gamma: jax.Array
    lb: jax.Array
    count: jax.Array


class MomoAdamState(NamedTuple):
    """`MomoState` with the average of |g|²."""

    exp_avg: Updates
    exp_avg_sq: Updates
    barf: jax.Array
    gamma: jax.Array
    lb: jax.Array
    count: jax.Array


# Optax's state has one count for two things: the age of the averages, and the step of a schedule. If the learning rate
# is a schedule, `restart` therefore moves both.


class ScheduledMomoState(MomoState):
    """`MomoState` where the learning rate is a schedule."""

    counts_from = {"count": 0}


class ScheduledMomoAdamState(MomoAdamState):
    """`MomoAdamState` where the learning rate is a schedule."""

    counts_from = {"count": 0}


def _momo(
    name: str,
    init: Callable,
    state: type,
    average: Callable,
    denominator: Callable,
    weight: Callable,
    learning_rate: ScalarOrSchedule,
    lower_bound: Bound,
    weight_decay: NonNegative,
    adapt: bool,
) -> GradientTransformationExtraArgs:
    """What MoMo and MoMo-Adam have in common.

    `average(old, new, t)` returns the new average of g, of the value or of <g, p>, `weight(t)` its total weight rho,
    `denominator(g, second, t)` D and the slots after the first.
    """

    def moments(g, slots, t):
        first, *second = slots if isinstance(slots, tuple) else (slots,)
        d, second = denominator(g, second, t)
        first = average(first, g, t)
        return first, safe_divide(first, d), second

    def measure(g, slots, p, t, memory):
        first, direction, _ = moments(g, slots, t)
        return inner(first, p), inner(first, direction), inner(g, p)

    def shared(t, total, memory, value):
        if jnp.ndim(value) != 0:
            raise ValueError(f"{name}: value must be a scalar, got shape {jnp.shape(value)}")
        at_p, squared, slope = total
        f, gamma = average(memory["barf"], value, t), average(memory["gamma"], slope, t)
        rho, decay = weight(t), 1 + learning_rate * weight_decay
        bound = memory["lb"] if adapt else lower_bound
        if adapt:
            # A bound above the model's value would stop the method: go back to half of that value.
            least = decay * (f - gamma) + at_p
            bound = jnp.where(least < decay * rho * bound, jnp.maximum(least / (2 * decay * rho), lower_bound), bound)
        polyak = safe_divide(jnp.maximum(decay * (f - rho * bound - gamma) + at_p, 0), squared)
        step = jnp.minimum(learning_rate / rho, polyak)
        if adapt:
            bound = jnp.maximum((f + at_p - gamma - step * squared / 2) / rho, lower_bound)
        return step, {"barf": f, "gamma": gamma, "lb": bound}

    def update(g, slots, p, t, step):
        first, direction, second = moments(g, slots, t)
        shrink = learning_rate * weight_decay
        return -(step * direction + shrink * p) / (1 + shrink), (first, *second) if second else first

    return per_parameter(
        init,
        update,
        state,
        measure=measure,
        shared=shared,
        memory=lambda: {"barf": 0.0, "gamma": 0.0, "lb": lower_bound},
        needs_params=True,
        needs=("value",),
    )


@transformation
def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: Decay = 0.9,
    lower_bound: Bound = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformationExtraArgs:
    """MoMo: momentum with a Polyak step size, at most the learning rate.

    ```
    d = beta d + (1 - beta) g         f, gamma = the same averages of value and <g, p>, all from their first values
    a = 1 + learning_rate weight_decay
    tau = min(learning_rate, max(a (f - lower_bound - gamma) + <d, p>, 0) / ‖d‖²)
    p = (p - tau d) / a
    ```

    `update` needs the value of the loss where the gradient was taken: `update(g, state, params, value=value)`.

    Args:
      lower_bound: a lower bound of the loss.
      adapt_lower_bound: True estimates the bound, starting at `lower_bound` and never going below it.

    Reference: Schaipp et al. 2023, arXiv:2305.07583, algorithm 1 and lemma 3.1.
    """

    def average(old, new, t):
        return jnp.where(t == 1, new, ema(old, new, beta))

    return _momo(
        "momo",
        zeros_like,
        ScheduledMomoState if callable(learning_rate) else MomoState,
        average,
        lambda g, second, t: (1.0, second),
        lambda t: 1.0,
        learning_rate,
        lower_bound,
        weight_decay,
        adapt_lower_bound,
    )


@transformation
def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    lower_bound: Bound = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformationExtraArgs:
    """MoMo-Adam: Adam with a Polyak step size, at most the learning rate.

    ```
    d = b1 d + (1 - b1) g             f, gamma = the same averages of value and <g, p>          rho = 1 - b1^t
    nu = b2 nu + (1 - b2) g²          D = sqrt(nu / (1 - b2^t)) + eps          a = 1 + learning_rate weight_decay
    tau = min(learning_rate / rho, max(a (f - rho lower_bound - gamma) + <d, p>, 0) / <d, d / D>)
    p = (p - tau d / D) / a
    ```

    `update` needs the value of the loss, as in `momo`.

    Args:
      lower_bound, adapt_lower_bound: see `momo`.

    Reference: Schaipp et al. 2023, arXiv:2305.07583, algorithm 2 and lemma 3.1.
    """

    def denominator(g, second, t):
        nu = ema(second[0], abs_sq(g), b2)
        return safe_sqrt(nu / one_minus_power(b2, t)) + eps, (nu,)

    return _momo(
        "momo_adam",
        lambda p: (zeros_like(p), zeros_like(p, real=True)),
        ScheduledMomoAdamState if callable(learning_rate) else MomoAdamState,
        lambda old, new, t: ema(old, new, b1),
        denominator,
        lambda t: one_minus_power(b1, t),
        learning_rate,
        lower_bound,
        weight_decay,
        adapt_lower_bound,
    )
