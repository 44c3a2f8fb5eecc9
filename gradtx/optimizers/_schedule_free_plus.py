# SPDX-License-Identifier: Apache-2.0
"""ScheduleFree+: Schedule-Free AdamW with Polyak's step size and momentum inside."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._evaluation import begun, eval_from, set_aside
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative, NonNegativeInt, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import copy_of, correction, ema, one_minus_power, zeros_like
from gradtx.numerics._distance import inner
from gradtx.numerics._interpolation import average_behind, averaged_step
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.wrappers._schedule_free_averaging import Interpolation


class ScheduleFreePlusState(NamedTuple):
    """Updates made, the last b1, the sum of weights, the largest learning rate, the average of ‖g‖_1, mu, nu and z."""

    count: jax.Array
    b1: jax.Array
    weight_sum: jax.Array
    max_lr: jax.Array
    gradient_norm: jax.Array
    mu: Updates
    nu: Updates
    z: Updates

    def eval_params(self, params: Params) -> Params:
        return eval_from(lambda y, z: average_behind(y, z, self.b1), params, self.z)


@transformation
def schedule_free_plus(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: NonNegativeInt | None = None,
    b1: Interpolation = 0.9,
    momentum: Decay = 0.9,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType = None,
    *,
    polyak_decay: Decay = 0.0,
    average_from: NonNegativeInt = 0,
    b1_steps: PositiveInt | None = None,
    b1_max: Decay = 0.965,
    weight_step_power: NonNegative = 0.0,
) -> GradientTransformationExtraArgs:
    """ScheduleFree+, where u is Adam's direction and n the average of sqrt(pi / 2) ‖g‖_1 over all parameters:

    ```
    a = rate max(0, value + b1 <g, z - x>) / n        rate = learning_rate min(1, t / warmup_steps)
    z = z - a (u + a weight_decay y)
    x = (1 - c) x + c z       c = w_t / Σ w           w_t = t^weight_step_power max_rate^weight_lr_power
    y = b1 x + (1 - b1) z
    ```

    The parameters are y; `update` needs the loss there: `update(g, state, params, value=value)`. The minimum of the
    loss should be near 0. Validate, save and deploy x: `eval_params(state, params)`.

    Args:
      warmup_steps: None or 0 for no warmup, rate = learning_rate.
      b1: the weight of x in y.
      momentum, b2, eps: the b1, b2 and eps of Adam in u.
      weight_decay: usually 20 to 50, since a² multiplies it.
      weight_lr_power, weight_step_power: the exponents in w_t.
      state_dtype: the dtype in which z is stored; None for at least float32.
      polyak_decay: the decay of n.
      average_from: the number of steps in which c is 1, about twice the warmup.
      b1_steps, b1_max: b1 rises to `b1_max` in `b1_steps` steps, 1 - b1 falling geometrically; None for a constant b1.

    Reference: Defazio 2026, arXiv:2605.19095.
    """

    def interpolation(t):
        if b1_steps is None:
            return b1
        part = jnp.minimum((t - 1) / b1_steps, 1)
        return 1 - (1 - b1) ** (1 - part) * (1 - b1_max) ** part

    def memory():
        return {"b1": b1, "weight_sum": 0.0, "max_lr": 0.0, "gradient_norm": 0.0}

    def measure(g, slots, p, t, memory):
        return jnp.sum(jnp.abs(g)), inner(g, begun(slots[2], p) - p)

    def shared(t, total, memory, value):
        if jnp.ndim(value) != 0:
            raise ValueError(f"schedule_free_plus: value must be a scalar, got shape {jnp.shape(value)}")
        (norm, along), old, new = total, memory["b1"], interpolation(t)
        norm = ema(memory["gradient_norm"], math.sqrt(math.pi / 2) * norm, polyak_decay)
        warm = 1 if not warmup_steps else jnp.minimum(t / warmup_steps, 1)
        rate = warm * learning_rate  # type: ignore[operator]  # a number in here
        # z - x is (z - y) / b1, with the b1 that y was made with.
        at_z = jnp.maximum(value + new / old * along, 0)
        step = rate * safe_divide(at_z, norm / one_minus_power(polyak_decay, t))
        max_lr = jnp.maximum(memory["max_lr"], rate)
        weight = t**weight_step_power * max_lr**weight_lr_power
        weight_sum = memory["weight_sum"] + weight
        share = jnp.where(t <= average_from, 1, safe_divide(weight, weight_sum))
        corrections = correction(momentum, t), correction(b2, t)
        memory = {"b1": new, "weight_sum": weight_sum, "max_lr": max_lr, "gradient_norm": norm}
        return (step, share, old, new, *corrections), memory

    def update(g, slots, p, t, common):
        (mu, nu, z), (step, share, old, new, of_mu, of_nu) = slots, common
        mu, nu, z = ema(mu, g, momentum), ema(nu, abs_sq(g), b2), begun(z, p)
        u = safe_divide(of_mu * mu, safe_sqrt(of_nu * nu) + eps) + step * weight_decay * p
        moved, z = averaged_step(-step * u, p, z, share, old, new)
        return moved, (mu, nu, z)

    return per_parameter(
        lambda p: (zeros_like(p), zeros_like(p, real=True), copy_of(p, state_dtype)),
        update,
        ScheduleFreePlusState,
        measure=measure,
        shared=shared,
        memory=memory,
        needs_params=True,
        needs=("value",),
        idle=lambda slots, t, memory: (*slots[:2], set_aside(slots[2], t == 1)),
    )
