# SPDX-License-Identifier: Apache-2.0
"""Projections of matrices to fewer rows or columns."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.numerics._ratios import l2_norm
from gradtx.numerics._safe import abs_sq, safe_sqrt


class GaLoreDimensionNumbers(NamedTuple):
    """The axes of a tensor that become the rows of its matrix, and those that become the columns."""

    reduction_axis: tuple[int, ...] | int = 0
    output_axis: tuple[int, ...] | int = 1


class Projection(NamedTuple):
    """Which side of a matrix G is projected, and on how many dimensions.

    On the left, G becomes R = PᴴG with P of shape (rows, rank); on the right, R = GP with P of shape (columns, rank).
    """

    left: bool
    rank: int

    def shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Those of P and R for a G of this shape."""
        m, n = shape
        return ((m, self.rank), (self.rank, n)) if self.left else ((n, self.rank), (m, self.rank))

    def low(self, matrix: jax.Array, basis: jax.Array) -> jax.Array:
        """R = PᴴG, or GP on the right."""
        return jnp.conj(basis.T) @ matrix if self.left else matrix @ basis

    def back(self, low: jax.Array, basis: jax.Array) -> jax.Array:
        """PR, or RPᴴ on the right."""
        return basis @ low if self.left else low @ jnp.conj(basis.T)

    def leading_vectors(self, matrix: jax.Array) -> jax.Array:
        """P, whose columns are the singular vectors of the projected side with the largest singular values.

        Their signs are those of the platform's SVD. P is constant under differentiation: the derivative of singular
        vectors is infinite where singular values coincide.
        """
        u, _, vh = jnp.linalg.svd(jax.lax.stop_gradient(matrix), full_matrices=False)
        return u[:, : self.rank] if self.left else jnp.conj(vh[: self.rank].T)

    def random_vectors(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """P with independent normal entries of variance 1 / rank, which preserves squared norms in expectation."""
        return jax.random.normal(key, self.shapes(shape)[0], dtype) / math.sqrt(self.rank)

    def norms(self, low: jax.Array, channels: bool) -> jax.Array:
        """The norm of each column of R (of each row if the right side is projected); without `channels`, that of R.

        Both axes are kept, so that the norms broadcast against G.
        """
        return safe_sqrt(jnp.sum(abs_sq(low), axis=(0 if self.left else 1) if channels else None, keepdims=True))


def projection_of(shape: tuple[int, ...], rank: int, larger: bool) -> Projection:
    """The projection of a matrix of this shape on its larger or smaller side; on the left if both are equal."""
    m, n = shape
    return Projection(m >= n if larger else m <= n, min(rank, m, n))


def limit_growth(x: jax.Array, previous: jax.Array, ratio: Any) -> tuple[jax.Array, jax.Array]:
    """`x`, scaled so that its norm is at most `ratio` times the previous norm, and its new norm.

    A previous norm of 0 sets no limit, or the norm would stay 0.
    """
    size = l2_norm(x)
    ratio = jnp.asarray(ratio, size.dtype)
    over = (previous > 0) & (size > ratio * previous)
    factor = jnp.where(over, ratio * previous / jnp.where(over, size, 1), 1)
    return factor * x, (factor * size).astype(previous.dtype)
