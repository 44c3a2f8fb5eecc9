# SPDX-License-Identifier: Apache-2.0
"""Scaling by one number: a constant, a learning rate or a schedule."""

from typing import NamedTuple

import jax

from gradtx.core._combine import identity
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._operations import multiply
from gradtx.core._ranges import Decay, Real, at_step
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction


class ScaleByScheduleState(NamedTuple):
    """The number of updates made."""

    count: jax.Array

    counts_from = {"count": 0}


class ScaleByBiasCorrectionState(NamedTuple):
    """The number of updates made."""

    count: jax.Array


@transformation
def scale(step_size: Real) -> GradientTransformationExtraArgs:
    """u = step_size * g.

    Args:
      step_size: any factor, negative ones too; its sign is used as it is.
    """
    return per_parameter(None, lambda g, slots, p, t: (multiply(step_size, g), slots))


@transformation
def scale_by_schedule(step_size_fn: Real) -> GradientTransformationExtraArgs:
    """u = step_size_fn(count) * g, where `count` is the number of updates made before: 0 at the first.

    Args:
      step_size_fn: a schedule, or a number; its sign is used as it is.
    """
    return per_parameter(None, lambda g, slots, p, t: (multiply(step_size_fn, g), slots), ScaleByScheduleState)


@transformation
def scale_by_lr(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
) -> GradientTransformationExtraArgs:
    """u = -learning_rate * g: the last stage of a recipe, which turns an ascent direction into a descent step.

    Args:
      learning_rate: a number, an array or a schedule; None leaves the updates as they are.
      flip_sign: False for a positive factor, to maximize.
    """
    if learning_rate is None:
        return identity()
    sign = -1 if flip_sign else 1
    if callable(learning_rate):
        return scale_by_schedule(lambda count: sign * at_step("scale_by_lr: learning_rate", learning_rate, count))
    return scale(sign * learning_rate)


@transformation
def scale_by_bias_correction(decay: Decay) -> GradientTransformationExtraArgs:
    """u = g / (1 - decay^t): removes the bias of a moving average that started at zero.

    `chain(scale_by_momentum(0.9, averaged=True), scale_by_bias_correction(0.9))` is the corrected average.

    Args:
      decay: the decay of that average.
    """

    def shared(t, total):
        return correction(decay, t)

    def update(g, slots, p, t, factor):
        return multiply(factor, g), slots

    return per_parameter(None, update, ScaleByBiasCorrectionState, shared=shared)
