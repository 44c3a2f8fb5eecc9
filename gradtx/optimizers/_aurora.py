# SPDX-License-Identifier: Apache-2.0
"""Aurora: an orthogonal direction whose rows have equal lengths."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, NonNegative, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._polar import jordan_momentum, polar_factor
from gradtx.numerics._safe import abs_sq, euclidean_norm, safe_divide
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._muon import matrices_and_rest, scale_by_matrix_shape
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams

SIMPLE12 = ((2.0, -1.5, 0.5),) * 12
"""Twelve steps that end at 1, from singular values that are not below 1e-3 of the norm."""


class ScaleByAuroraState(NamedTuple):
    """The number of updates made and the moving average of g."""

    count: jax.Array
    mu: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_aurora(
    beta: Decay = 0.95,
    *,
    rounds: PositiveInt = 2,
    power: NonNegative = 0.5,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """Muon's direction, with the rows of the momentum scaled so that those of the direction have about equal lengths:

    ```
    mu = beta mu + (1 - beta) g        x = beta mu + (1 - beta) g        y = x / the norm of each row
    u  = the polar factor of y         before each further round, y = y ((n / m) / Σ u²)^power, with the sum of each row
    ```

    Here a matrix has m rows of n elements, m > n. Some rows of its polar factor may be short, and hardly learn; with
    equal ones, each has the norm sqrt(n / m). Squares are not scaled, as the rows of their polar factor all have norm
    1. The polar factor is that of twelve Newton-Schulz steps with (2, -1.5, 0.5).

    Args:
      rounds: the number of polar factors at each step.
      power: how far a round corrects the lengths.
      weight_dimension_numbers: see `scale_by_muon`.

    Raises:
      ValueError: for a parameter that is no matrix and has no dimension numbers.

    Reference: arXiv:2606.27715.
    """
    polar = polar_factor("scale_by_aurora", SIMPLE12, 1e-7)

    def update(x, slots, p, t):
        inputs, outputs = x.shape
        if inputs == outputs:
            return polar(x), slots
        shorter, ratio = (0, inputs / outputs) if inputs < outputs else (1, outputs / inputs)
        y = safe_divide(x, euclidean_norm(x, axis=shorter, keepdims=True))
        u = polar(y)
        for _ in range(rounds - 1):
            squares = jnp.sum(abs_sq(u), axis=shorter, keepdims=True)
            y = y * safe_divide(jnp.full_like(squares, ratio), squares) ** power
            u = polar(y)
        return u, slots

    return per_matrix(
        zeros_like,
        update,
        ScaleByAuroraState,
        enter=jordan_momentum(beta, nesterov=True),
        entering=("mu",),
        weight_dimension_numbers=weight_dimension_numbers,
    )


@transformation
def aurora(
    learning_rate: ScalarOrSchedule,
    beta: Decay = 0.95,
    weight_decay: NonNegative = 0.025,
    *,
    rounds: PositiveInt = 2,
    power: NonNegative = 0.5,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
) -> GradientTransformationExtraArgs:
    """Aurora on matrices, Adam on the rest, as `muon` divides them; both with Nesterov momentum and decoupled decay.

    See `scale_by_aurora` for the formula; the factor for the shape is Muon's, sqrt(max(1, outputs / inputs)). The
    authors' learning rate is 0.05.

    Args:
      rounds, power: see `scale_by_aurora`.
      mask: where to decay among the matrices; the rest has `adam_weight_decay`.
      weight_dimension_numbers: as `muon_weight_dimension_numbers` of `muon`.
      adam_learning_rate: None for `learning_rate`.

    Reference: arXiv:2606.27715.
    """
    of_matrices = chain(
        scale_by_aurora(beta, rounds=rounds, power=power, weight_dimension_numbers=weight_dimension_numbers),
        scale_by_matrix_shape(None, weight_dimension_numbers),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    of_rest = adamw(rate, adam_b1, adam_b2, eps_root=adam_eps_root, weight_decay=adam_weight_decay, nesterov=True)
    return matrices_and_rest(of_matrices, of_rest, weight_dimension_numbers)
