# SPDX-License-Identifier: Apache-2.0
"""Dion and Dion2: an orthogonal direction in a part of the momentum, which forgets only what it has used."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, DType, Fraction, NonNegative, NonNegativeInt, PositiveInt, StaticFraction
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._linear_algebra import HIGHEST
from gradtx.numerics._polar import polar_factor
from gradtx.numerics._safe import euclidean_norm, safe_divide
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._muon import Scaling, matrices_and_rest, scale_by_matrix_shape
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByDionState(NamedTuple):
    """The number of updates made, what of the gradients is not used up, and directions on the side of the inputs."""

    count: jax.Array
    mu: Updates
    basis: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_dion(
    beta: Decay = 0.95,
    rank: PositiveInt = 768,
    eps: NonNegative = 1e-8,
    *,
    seed: NonNegativeInt = 0,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """An orthonormal direction of low rank, from one power iteration a step, with what is left fed back:

    ```
    M = M + g                P = the orthonormal columns of the QR decomposition of Mᵀ Q        R = M P
    M = M - (1 - beta) R Pᵀ        Q = R / (‖each column of R‖ + eps)        u = Q Pᵀ
    ```

    A matrix of (inputs, outputs) has a Q of (inputs, rank), of normal numbers at first, which is the state's `basis`.

    Args:
      rank: the number of columns, lowered to the smaller side of a matrix.
      weight_dimension_numbers: see `scale_by_muon`.

    Raises:
      ValueError: for a rank above both sides of a matrix; for a parameter that is no matrix.

    Reference: Ahn et al. 2025, arXiv:2504.05295.
    """

    def init(p):
        if rank > max(p.shape):
            raise ValueError(f"scale_by_dion: rank must be at most {max(p.shape)} for a matrix {p.shape}, got {rank}")
        shape = (p.shape[0], min(rank, *p.shape))
        return zeros_like(p), jax.random.normal(jax.random.key(seed), shape, p.dtype)

    def update(g, slots, p, t):
        mu, basis = slots
        mu = mu + g
        seen = _product(_adjoint(mu), basis)
        # Zeros have no derivative of a decomposition; the columns are those of the identity, as they are for zeros.
        left, _ = jnp.linalg.qr(jnp.where(jnp.any(seen != 0), seen, jnp.eye(*seen.shape, dtype=seen.dtype)))
        right = _product(mu, left)
        basis = safe_divide(right, euclidean_norm(right, axis=0, keepdims=True) + eps)
        mu = mu - (1 - beta) * _product(right, _adjoint(left))
        return _product(basis, _adjoint(left)), (mu, basis)

    return per_matrix(init, update, ScaleByDionState, weight_dimension_numbers=weight_dimension_numbers)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=HIGHEST)


def _adjoint(x: jax.Array) -> jax.Array:
    return jnp.conj(x.T)


@transformation
def dion(
    learning_rate: ScalarOrSchedule,
    beta: Decay = 0.95,
    rank: PositiveInt = 768,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    *,
    seed: NonNegativeInt = 0,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
) -> GradientTransformationExtraArgs:
    """Dion on matrices, Adam on the rest, as `muon` divides them; both with decoupled weight decay.

    See `scale_by_dion` for the formula; the update of a matrix is multiplied by sqrt(outputs / inputs).

    Args:
      rank: see `scale_by_dion`.
      eps: as in the formula; also added to Adam's denominator.
      mask: where to decay among the matrices; the rest has `adam_weight_decay`.
      weight_dimension_numbers: as `muon_weight_dimension_numbers` of `muon`.
      adam_learning_rate: None for `learning_rate`.

    Reference: Ahn et al. 2025, arXiv:2504.05295.
    """
    of_matrices = chain(
        scale_by_dion(beta, rank, eps, seed=seed, weight_dimension_numbers=weight_dimension_numbers),
        scale_by_matrix_shape(None, weight_dimension_numbers, scaling="spectral"),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    of_rest = adamw(rate, adam_b1, adam_b2, eps, adam_eps_root, weight_decay=adam_weight_decay)
    return matrices_and_rest(of_matrices, of_rest, weight_dimension_numbers)


class ScaleByDion2State(NamedTuple):
    """The number of updates made, and what of the gradients is not used up."""

    count: jax.Array
    mu: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_dion2(
    fraction: StaticFraction = 0.25,
    ef_decay: Fraction = 0.95,
    ns_coeffs: Any = "polar_express",
    eps: NonNegative = 1e-8,
    *,
    ns_dtype: DType = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """Muon's direction for the largest rows of the summed gradients, which lose a part of what they have at each use:

    ```
    M = M + g        S = the ceil(fraction n) rows of M with the largest sums of magnitudes
    u = NewtonSchulz(M) of these rows, 0 elsewhere        M = ef_decay M in these rows
    ```

    The rows are along the shorter side of n elements; of a square, they are the outputs.

    Args:
      fraction: how many of the rows are used at each step, in (0, 1]; a Python number, as shapes depend on it.
      ef_decay: what an update leaves of the rows it used.
      ns_coeffs, ns_dtype, weight_dimension_numbers: see `scale_by_muon`.
      eps: added to the norm that the rows are divided by.

    Raises:
      ValueError: for a parameter that is no matrix and has no dimension numbers.

    Reference: arXiv:2512.16928.
    """
    polar = polar_factor("scale_by_dion2", ns_coeffs, eps, ns_dtype)

    def update(g, mu, p, t):
        inputs, outputs = g.shape
        turned = outputs <= inputs
        rows = (mu + g).T if turned else mu + g
        used = min(len(rows), max(1, math.ceil(fraction * len(rows))))
        _, chosen = jax.lax.top_k(jnp.sum(jnp.abs(rows), axis=1), used)
        u = jnp.zeros_like(rows).at[chosen].set(polar(rows[chosen]), unique_indices=True)
        rows = rows.at[chosen].multiply(ef_decay, unique_indices=True)
        return (u.T, rows.T) if turned else (u, rows)

    return per_matrix(zeros_like, update, ScaleByDion2State, weight_dimension_numbers=weight_dimension_numbers)


@transformation
def dion2(
    learning_rate: ScalarOrSchedule,
    fraction: StaticFraction = 0.25,
    ef_decay: Fraction = 0.95,
    weight_decay: NonNegative = 0.01,
    ns_coeffs: Any = "polar_express",
    eps: NonNegative = 1e-8,
    scaling: Scaling = "spectral",
    *,
    ns_dtype: DType = None,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
) -> GradientTransformationExtraArgs:
    """Dion2 on matrices, Adam on the rest, as `muon` divides them; both with decoupled weight decay.

    See `scale_by_dion2` for the formula.

    Args:
      fraction, ef_decay, ns_coeffs, ns_dtype: see `scale_by_dion2`.
      eps: as in the formula; also added to Adam's denominator.
      scaling: see `scale_by_matrix_shape`; of the whole matrix, not of the rows that are used.
      mask: where to decay among the matrices; the rest has `adam_weight_decay`.
      weight_dimension_numbers: as `muon_weight_dimension_numbers` of `muon`.
      adam_learning_rate: None for `learning_rate`.

    Reference: arXiv:2512.16928.
    """
    of_matrices = chain(
        scale_by_dion2(
            fraction, ef_decay, ns_coeffs, eps, ns_dtype=ns_dtype, weight_dimension_numbers=weight_dimension_numbers
        ),
        scale_by_matrix_shape(None, weight_dimension_numbers, scaling=scaling),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    of_rest = adamw(rate, adam_b1, adam_b2, eps, adam_eps_root, weight_decay=adam_weight_decay)
    return matrices_and_rest(of_matrices, of_rest, weight_dimension_numbers)
