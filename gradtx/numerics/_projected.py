# SPDX-License-Identifier: Apache-2.0
"""Tensors as matrices, and projections of matrices to fewer rows or columns."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._roles import logical_view
from gradtx.core._trees import align, is_hole, is_none, paths
from gradtx.numerics._ratios import l2_norm
from gradtx.numerics._safe import abs_sq, safe_sqrt


class MatrixView(NamedTuple):
    """How a tensor is seen as a matrix G, and which side of it is projected.

    On the left, G becomes R = PᴴG with P of shape (rows, rank); on the right, R = GP with P of shape (columns, rank).
    """

    axes: tuple[int, ...]  # the order of the tensor's axes in the matrix
    tensor: tuple[int, ...]  # the tensor's shape in that order
    rows: int
    columns: int
    left: bool
    rank: int

    @property
    def projector_shape(self) -> tuple[int, int]:
        return (self.rows if self.left else self.columns, self.rank)

    @property
    def low_shape(self) -> tuple[int, int]:
        return (self.rank, self.columns) if self.left else (self.rows, self.rank)


class GaLoreDimensionNumbers(NamedTuple):
    """The axes of a tensor that become the rows of its matrix, and those that become the columns."""

    reduction_axis: tuple[int, ...] | int = 0
    output_axis: tuple[int, ...] | int = 1


def matrix_views(where: str, numbers: Any, tree: Any, rank: int, larger: bool) -> dict[int, MatrixView]:
    """The views of the leaves of a tree as matrices, by position of the leaf; None counts as a leaf.

    `numbers` is a tree of `GaLoreDimensionNumbers`, like `tree` or a prefix of it, with None for leaves that are no
    matrices, or a function from `tree` to such a tree. None takes each leaf with two axes as a matrix.
    """
    leaves = jax.tree.leaves(tree, is_leaf=is_none)
    if numbers is None:
        specs: list = [None if x is None or jnp.ndim(x) != 2 else GaLoreDimensionNumbers() for x in leaves]
    else:
        specs = _numbers_of_leaves(where, numbers(logical_view(tree)) if callable(numbers) else numbers, tree)
    views = {}
    for i, (spec, x, path) in enumerate(zip(specs, leaves, paths(tree), strict=True)):
        if spec is not None and not is_hole(x) and jnp.size(x) > 0:
            views[i] = matrix_view(f"{where}: at {path}", spec, jnp.shape(x), rank, larger)
    return views


def _numbers_of_leaves(where: str, numbers: Any, tree: Any) -> list[GaLoreDimensionNumbers | None]:
    flat, treedef = jax.tree.flatten(numbers, is_leaf=lambda x: x is None or isinstance(x, GaLoreDimensionNumbers))
    for spec in flat:
        if spec is not None and not isinstance(spec, GaLoreDimensionNumbers):
            raise TypeError(f"{where}: weight_dimension_numbers must hold GaLoreDimensionNumbers or None, got {spec!r}")
    parts = align(treedef, tree, where, "the gradients", numbers, "weight_dimension_numbers")
    return [spec for spec, part in zip(flat, parts, strict=True) for _ in jax.tree.leaves(part, is_leaf=is_none)]


def matrix_view(
    where: str, spec: GaLoreDimensionNumbers, shape: tuple[int, ...], rank: int, larger: bool
) -> MatrixView:
    """The view of a tensor of this shape, projected on its larger or smaller side; on the left if both are equal."""
    rows, columns = (_from_the_left(axes, len(shape)) for axes in spec)
    axes = (*rows, *columns)
    if sorted(axes) != list(range(len(shape))):
        raise ValueError(f"{where}: {spec} must name each axis of the shape {shape} once")
    m, n = (math.prod(shape[i] for i in part) for part in (rows, columns))
    left = m >= n if larger else m <= n
    return MatrixView(axes, tuple(shape[i] for i in axes), m, n, left, min(rank, m, n))


def _from_the_left(axes: tuple[int, ...] | int, ndim: int) -> tuple[int, ...]:
    return tuple(i + ndim if i < 0 else i for i in ((axes,) if isinstance(axes, int) else axes))


def to_matrix(x: jax.Array, view: MatrixView) -> jax.Array:
    """The tensor as a matrix."""
    return jnp.transpose(x, view.axes).reshape(view.rows, view.columns)


def from_matrix(matrix: jax.Array, view: MatrixView) -> jax.Array:
    """The matrix as the tensor it came from."""
    return jnp.transpose(matrix.reshape(view.tensor), sorted(range(len(view.axes)), key=view.axes.__getitem__))


def project(matrix: jax.Array, projector: jax.Array, view: MatrixView) -> jax.Array:
    """R = PᴴG, or GP on the right."""
    return jnp.conj(projector.T) @ matrix if view.left else matrix @ projector


def project_back(low: jax.Array, projector: jax.Array, view: MatrixView) -> jax.Array:
    """PR, or RPᴴ on the right."""
    return projector @ low if view.left else low @ jnp.conj(projector.T)


def leading_vectors(matrix: jax.Array, view: MatrixView) -> jax.Array:
    """P, whose columns are the singular vectors of the projected side with the largest singular values.

    Their signs are those of the platform's SVD. P is constant under differentiation: the derivative of singular
    vectors is infinite where singular values coincide.
    """
    u, _, vh = jnp.linalg.svd(jax.lax.stop_gradient(matrix), full_matrices=False)
    return u[:, : view.rank] if view.left else jnp.conj(vh[: view.rank].T)


def random_projector(key: jax.Array, view: MatrixView, dtype: Any) -> jax.Array:
    """P with independent normal entries of variance 1 / rank, which preserves squared norms in expectation."""
    return jax.random.normal(key, view.projector_shape, dtype) / math.sqrt(view.rank)


def norms(low: jax.Array, view: MatrixView, channels: bool) -> jax.Array:
    """The norm of each column of R (of each row if the right side is projected); without `channels`, the norm of R.

    Both axes are kept, so that the norms broadcast against G.
    """
    return safe_sqrt(jnp.sum(abs_sq(low), axis=(0 if view.left else 1) if channels else None, keepdims=True))


def limit_growth(x: jax.Array, previous: jax.Array, ratio: Any) -> tuple[jax.Array, jax.Array]:
    """`x`, scaled so that its norm is at most `ratio` times the previous norm, and its new norm.

    A previous norm of 0 sets no limit, or the norm would stay 0.
    """
    size = l2_norm(x)
    ratio = jnp.asarray(ratio, size.dtype)
    over = (previous > 0) & (size > ratio * previous)
    factor = jnp.where(over, ratio * previous / jnp.where(over, size, 1), 1)
    return factor * x, (factor * size).astype(previous.dtype)
