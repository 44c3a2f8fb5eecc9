# SPDX-License-Identifier: Apache-2.0
"""Fromage: steps relative to the norm of the parameter, and a shrinkage that keeps that norm from growing."""

from typing import Any

from gradtx.core.factory import per_parameter, transformation
from gradtx.core.ranges import NonNegative
from gradtx.core.transformation import GradientTransformationExtraArgs
from gradtx.core.types import ScalarOrSchedule
from gradtx.numerics.norms import l2_norm, trust_ratio


@transformation
def fromage(learning_rate: ScalarOrSchedule, min_norm: NonNegative = 1e-6) -> GradientTransformationExtraArgs:
    """p = (p - learning_rate * g ‖p‖ / ‖g‖) / sqrt(1 + learning_rate²), parameter by parameter.

    Args:
      min_norm: both norms count as at least this; if it is 0, a ratio with a norm of 0 is 1.

    Reference: Bernstein et al. 2020, arXiv:2002.03432, algorithm 1.
    """

    rate: Any = learning_rate  # a number by the time that it is used

    def shared(t, total):
        square = rate**2
        shrinkage = (1 + square) ** -0.5
        # shrinkage - 1, without the cancellation that would leave nothing of it for small rates.
        return shrinkage, -square * shrinkage / (1 + 1 / shrinkage)

    def update(g, slots, p, t, common):
        shrinkage, less_one = common
        ratio = trust_ratio(l2_norm(p, min_norm), l2_norm(g, min_norm))
        return less_one * p - shrinkage * rate * ratio * g, slots

    return per_parameter(None, update, shared=shared, needs_params=True)
