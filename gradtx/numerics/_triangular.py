# SPDX-License-Identifier: Apache-2.0
"""Triangles: Kronecker factors that are upper triangular or diagonal, and symmetric matrices kept as one half."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.numerics._kronecker import Arrays, adjoint, along, gram, if_finite
from gradtx.numerics._linear_algebra import HIGHEST
from gradtx.numerics._ratios import l2_norm
from gradtx.numerics._safe import abs_sq, safe_divide


def initial_factors(p: jax.Array, scale: Any, largest: int) -> Arrays:
    """Multiples of the identity whose Kronecker product is `scale` times it; a scalar has one number.

    Vectors, axes of length 1 and those longer than `largest` have a diagonal.
    """
    shape = p.shape or (1,)
    each = scale ** (1 / len(shape))
    full = [len(shape) > 1 and 1 < n <= largest for n in shape]
    units = [jnp.eye(n, dtype=p.dtype) if f else jnp.ones(n, p.dtype) for n, f in zip(shape, full, strict=True)]
    return tuple(each * unit for unit in units)


def multiplied(x: jax.Array, factors: Arrays) -> jax.Array:
    """x with each axis multiplied by its factor."""
    for axis, q in enumerate(factors):
        x = along(x, q, axis) if q.ndim == 2 else x * _shaped(q, axis, x.ndim)
    return x


def preconditioned(x: jax.Array, factors: Arrays) -> jax.Array:
    """x with each axis multiplied by Qᴴ Q."""
    return multiplied(multiplied(x, factors), tuple(adjoint(q) if q.ndim == 2 else jnp.conj(q) for q in factors))


def divided(x: jax.Array, factors: Arrays) -> jax.Array:
    """x with each axis multiplied by the inverse of Qᴴ."""
    from jax.scipy.linalg import solve_triangular  # here, as it loads much that only few need

    for axis, q in enumerate(factors):
        if q.ndim == 1:
            x = x / _shaped(jnp.conj(q), axis, x.ndim)
            continue
        first = jnp.moveaxis(x, axis, 0)
        solved = solve_triangular(q, first.reshape(len(q), -1), trans="C", lower=False).reshape(first.shape)
        x = jnp.moveaxis(solved, 0, axis)
    return x


def _shaped(diagonal: jax.Array, axis: int, ndim: int) -> jax.Array:
    return diagonal.reshape([-1 if i == axis else 1 for i in range(ndim)])


def whitened(factors: Arrays, h: jax.Array, v: jax.Array, rate: Any) -> Arrays:
    """A step of the factors towards those with which h becomes white noise, of which v is a sample.

    ```
    A = (⊗ Q) h        B = (⊗ Q)^(-ᴴ) v        T1, T2: their Gram matrices along an axis
    Q = Q - rate triu(T1 - T2) Q / ‖T1 + T2‖
    ```
    """
    a, b = multiplied(h, factors), divided(v, factors)

    def moved(q: jax.Array, axis: int) -> jax.Array:
        if q.ndim == 2:
            one, two = gram(a, axis), gram(b, axis)
            slope = jnp.matmul(jnp.triu(one - two), q, precision=HIGHEST)
            return q - rate * safe_divide(slope, spectral_lower_bound(one + two).astype(q.dtype))
        others = [i for i in range(h.ndim) if i != axis]
        one, two = (jnp.sum(abs_sq(x), others) for x in (a, b))
        return q - rate * safe_divide((one - two) * q, jnp.max(one + two, initial=0).astype(q.dtype))

    return tuple(if_finite(moved(q, axis), q) for axis, q in enumerate(factors))


def spectral_lower_bound(matrix: jax.Array) -> jax.Array:
    """A lower bound of the spectral norm of a symmetric matrix: one power step from its column of largest norm."""
    largest = jnp.max(jnp.abs(matrix), initial=0)
    unit = safe_divide(matrix, largest.astype(matrix.dtype))
    column = unit[:, jnp.argmax(jnp.sum(abs_sq(unit), axis=0))]
    x = jnp.matmul(unit, column, precision=HIGHEST)
    return largest * l2_norm(jnp.matmul(unit, safe_divide(x, l2_norm(x).astype(x.dtype)), precision=HIGHEST))


def balanced(factors: Arrays) -> Arrays:
    """The same Kronecker product of factors whose largest elements are equal."""
    sizes = jnp.stack([jnp.max(jnp.abs(q), initial=0) for q in factors])
    middle = jnp.prod(sizes ** (1 / len(factors)))
    return tuple(q * safe_divide(middle, size).astype(q.dtype) for q, size in zip(factors, sizes, strict=True))


def packed(x: jax.Array) -> jax.Array:
    """The n (n + 1) / 2 numbers of each symmetric matrix (..., n, n) in a row.

    Whole pieces are moved, as an index for each number would take as much memory as the matrix: of [[a, b], [bᵀ, c]],
    cut in the middle, b, and a piece that has the lower triangle of c and above it the upper one of a.
    """
    n = x.shape[-1]
    h, m, lead = n // 2, n - n // 2, [(0, 0)] * (x.ndim - 2)
    a, b, c = x[..., :h, :h], x[..., :h, h:], x[..., h:, h:]
    a = jnp.pad(a, [*lead, (0, m - h), (1, 0)])
    c = jnp.pad(c, [*lead, (0, 0), (0, h + 1 - m)])
    both = jnp.where(_lower(c), c, a)
    return jnp.concatenate([y.reshape(*x.shape[:-2], y.shape[-2] * y.shape[-1]) for y in (b, both)], axis=-1)


def unpacked(x: jax.Array) -> jax.Array:
    """`packed` undone."""
    n = side_of(x.shape[-1])
    h, m = n // 2, n - n // 2
    b = x[..., : h * m].reshape(*x.shape[:-1], h, m)
    both = x[..., h * m :].reshape(*x.shape[:-1], m, h + 1)
    a, c = both[..., :h, 1:].mT, both[..., :m]
    a, c = (jnp.where(_lower(y), y, y.mT) for y in (a, c))
    rows = [jnp.concatenate(row, axis=-1) for row in ((a, b), (b.mT, c))]
    return jnp.concatenate(rows, axis=-2)


def side_of(size: int) -> int:
    """The n of n (n + 1) / 2 numbers."""
    return (math.isqrt(8 * size + 1) - 1) // 2


def _lower(x: jax.Array) -> jax.Array:
    """Where the lower triangle of these matrices is, the diagonal included."""
    return jnp.expand_dims(jnp.tri(*x.shape[-2:], dtype=bool), range(x.ndim - 2))
