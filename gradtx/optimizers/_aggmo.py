# SPDX-License-Identifier: Apache-2.0
"""Aggregated momentum: several momenta with different decays, averaged."""

from collections.abc import Sequence
from typing import NamedTuple

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import DType, is_number
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.transforms._scaling import scale_by_lr


class ScaleByAggMoState(NamedTuple):
    """The velocities: for each parameter a tuple of arrays, one for each decay."""

    velocity: Updates


@transformation
def scale_by_aggmo(
    decays: Sequence[float] = (0.0, 0.9, 0.99), accumulator_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """v_k = decays[k] v_k + g; u = the mean of the v_k.

    Velocities with large decays give speed; those with small decays damp the oscillations.

    Args:
      decays: numbers in [0, 1); the paper's are 1 - 0.1^k for k = 0, ..., K - 1.
      accumulator_dtype: the dtype in which the velocities are stored; None for at least float32.

    Reference: Lucas et al. 2018, arXiv:1804.00325.
    """
    if isinstance(decays, str) or not isinstance(decays, Sequence) or not all(map(is_number, decays)):
        raise TypeError(f"scale_by_aggmo: decays must be a tuple of numbers, got {decays!r}")
    if not decays or not all(0 <= b < 1 for b in decays):
        raise ValueError(f"scale_by_aggmo: decays must be numbers in [0, 1), at least one, got {decays!r}")

    def init(p):
        return tuple(zeros_like(p, accumulator_dtype) for _ in decays)

    def update(g, velocity, p, t):
        velocity = tuple(b * v + g for b, v in zip(decays, velocity, strict=True))
        return sum(velocity[1:], start=velocity[0]) / len(decays), velocity

    return per_parameter(init, update, ScaleByAggMoState)


@transformation
def aggmo(
    learning_rate: ScalarOrSchedule, decays: Sequence[float] = (0.0, 0.9, 0.99), accumulator_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """Aggregated momentum: descent along the mean of momenta with several decays.

    See `scale_by_aggmo` for the formula.

    Args:
      decays: numbers in [0, 1), one for each velocity.

    Reference: Lucas et al. 2018, arXiv:1804.00325.
    """
    return chain(scale_by_aggmo(decays, accumulator_dtype), scale_by_lr(learning_rate))
