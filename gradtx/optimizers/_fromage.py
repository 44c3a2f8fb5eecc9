# SPDX-License-Identifier: Apache-2.0
"""Fromage: steps relative to the norm of the parameter, and a shrinkage that keeps that norm from growing."""

from collections.abc import Callable
from typing import Any

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, at_step
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._trust_ratio import scale_by_trust_ratio
from gradtx.transforms._weight_decay import decay_weights


@transformation
def fromage(learning_rate: ScalarOrSchedule, min_norm: NonNegative = 1e-6) -> GradientTransformationExtraArgs:
    """p = (p - learning_rate * g ‖p‖ / ‖g‖) / sqrt(1 + learning_rate²), parameter by parameter.

    Args:
      min_norm: both norms count as at least this; with 0, the ratio is 1 where one of the norms is 0.

    Reference: Bernstein et al. 2020, arXiv:2002.03432, algorithm 1.
    """
    return chain(
        scale_by_trust_ratio(min_norm),
        scale_by_lr(_at(learning_rate, lambda rate: rate * _shrinkage(rate))),
        decay_weights(_at(learning_rate, _loss)),
    )


def _at(learning_rate: Any, f: Callable) -> Any:
    return (
        (lambda count: f(at_step("fromage: learning_rate", learning_rate, count)))
        if callable(learning_rate)
        else f(learning_rate)
    )


def _shrinkage(rate: Any) -> Any:
    return (1 + rate**2) ** -0.5


def _loss(rate: Any) -> Any:
    """1 - shrinkage, without the cancellation that would make it 0 for small learning rates."""
    shrinkage = _shrinkage(rate)
    return rate**2 * shrinkage / (1 + 1 / shrinkage)
