# SPDX-License-Identifier: Apache-2.0
"""Schedule-Free Adam and descent."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, DType, NonNegative, NonNegativeInt, at_step
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._rmsprop import scale_by_rms
from gradtx.optimizers._sgd import sgd
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._schedule_free_averaging import Interpolation, schedule_free


def _warming(learning_rate: Any, warmup_steps: int | None) -> Any:
    """The learning rate times min(1, t / warmup_steps), with t from 1: the first step is not lost on a rate of zero."""
    if not warmup_steps:
        return learning_rate
    return lambda count: _at(learning_rate, count) * jnp.minimum(1.0, (_at(count, count) + 1) / warmup_steps)


def _times(weight_decay: Any, learning_rate: Any) -> Any:
    if callable(learning_rate) or callable(weight_decay):
        return lambda count: _at(weight_decay, count) * _at(learning_rate, count)
    return weight_decay * learning_rate


def _at(x: Any, count: Any) -> jax.Array:
    """The value of a number or a schedule at a step, in floating point."""
    return jnp.asarray(at_step("schedule_free", x, count), jnp.result_type(float))


@transformation
def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    warmup_steps: NonNegativeInt | None = None,
    b1: Interpolation = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType = None,
    *,
    weight_step_power: NonNegative = 0.0,
    corrected_decay: bool = False,
) -> GradientTransformationExtraArgs:
    """Schedule-Free AdamW: `schedule_free` around Adam without momentum, which the average replaces:

    ```
    nu = b2 nu + (1 - b2) g²      z = z - rate (g / (sqrt(nu / (1 - b2^t)) + eps) + weight_decay y)
    ```

    The parameters are y, at which gradients are taken; validate, save and deploy `eval_params(state, params)`.

    Args:
      warmup_steps: the rate is learning_rate min(1, t / warmup_steps), with t from 1; None or 0 for no warmup.
      b1: the weight of the average in y; it may be a schedule.
      weight_lr_power, weight_step_power: the exponents of learning rate and step in the weights of the average.
      state_dtype: the dtype in which z is stored; None for at least float32.
      corrected_decay: True multiplies the weight decay by the rate once more: rate² weight_decay y.

    References: Defazio et al. 2024, arXiv:2405.15682; Defazio 2026, arXiv:2605.19095 (the keyword-only arguments).
    """
    rate = _warming(learning_rate, warmup_steps)
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(_times(weight_decay, rate) if corrected_decay else weight_decay),
        scale_by_lr(rate),
    )
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype, weight_step_power=weight_step_power)


@transformation
def schedule_free_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: NonNegativeInt | None = None,
    b1: Interpolation = 0.9,
    weight_decay: NonNegative | None = None,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType = None,
    *,
    weight_step_power: NonNegative = 0.0,
) -> GradientTransformationExtraArgs:
    """Schedule-Free descent: `schedule_free` around z = z - rate (g + weight_decay y).

    The parameters are y, at which gradients are taken; validate, save and deploy `eval_params(state, params)`.

    Args:
      warmup_steps: the rate is learning_rate min(1, t / warmup_steps), with t from 1; None or 0 for no warmup.
      b1: the weight of the average in y; it may be a schedule.
      weight_lr_power, weight_step_power: the exponents of learning rate and step in the weights of the average.
      state_dtype: the dtype in which z is stored; None for at least float32.

    Reference: Defazio et al. 2024, arXiv:2405.15682.
    """
    rate = _warming(learning_rate, warmup_steps)
    base = sgd(rate) if weight_decay is None else chain(add_decayed_weights(weight_decay), sgd(rate))
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype, weight_step_power=weight_step_power)
