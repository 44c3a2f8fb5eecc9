# SPDX-License-Identifier: Apache-2.0
"""Kronecker factors: for each axis of a tensor a matrix of what the gradient was along it, with its basis and root.

The functions take one tensor. Its factors are a tuple with one square matrix for each of some axes; what has none is
left as it is by products along the axes.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.numerics._averages import ema
from gradtx.numerics._linear_algebra import HIGHEST
from gradtx.numerics._safe import abs_sq, safe_sqrt

Axes = tuple[int, ...]
Arrays = tuple[jax.Array, ...]


def axes_with_basis(shape: tuple[int, ...], largest: int) -> Axes:
    """The axes of a tensor for which a square matrix is affordable; none of a vector, whose elements are units."""
    return tuple(axis for axis, n in enumerate(shape) if 0 < n <= largest) if len(shape) > 1 else ()


def zeros_of(p: jax.Array, axes: Axes) -> Arrays:
    """A matrix of zeros for each of these axes."""
    return tuple(jnp.zeros((p.shape[axis],) * 2, p.dtype) for axis in axes)


def identities_of(p: jax.Array, axes: Axes) -> Arrays:
    """An identity matrix for each of these axes."""
    return tuple(jnp.eye(p.shape[axis], dtype=p.dtype) for axis in axes)


def along(x: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    """Σ_k matrix[i, k] x[..., k, ...]: the matrix times x along one axis."""
    return jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis), precision=HIGHEST), 0, axis)


def along_all(x: jax.Array, matrices: Iterable[jax.Array], axes: Axes) -> jax.Array:
    """`along` each of these axes with its own matrix."""
    for matrix, axis in zip(matrices, axes, strict=True):
        x = along(x, matrix, axis)
    return x


def adjoint(matrix: jax.Array) -> jax.Array:
    return jnp.conj(matrix.T)


def into_bases(x: jax.Array, bases: Arrays, axes: Axes) -> jax.Array:
    """The coordinates of x in these bases, whose vectors are columns."""
    return along_all(x, map(adjoint, bases), axes)


def out_of_bases(x: jax.Array, bases: Arrays, axes: Axes) -> jax.Array:
    """The tensor with these coordinates: `into_bases` undone."""
    return along_all(x, bases, axes)


def gram(x: jax.Array, axis: int) -> jax.Array:
    """X Xᴴ for X of shape (n, all others), whose rows are the slices of x along the axis."""
    others = [i for i in range(x.ndim) if i != axis]
    return jnp.tensordot(x, jnp.conj(x), (others, others), precision=HIGHEST)


def if_finite(new: Any, old: Any) -> Any:
    """The new array or arrays if all elements are finite, else the old ones.

    So an infinite gradient does not stay in a matrix for good.
    """
    finite = jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(new)])
    return jax.tree.map(lambda n, o: jnp.where(jnp.all(finite), n, o), new, old)


def averaged_grams(factors: Arrays, x: jax.Array, axes: Axes, decay: Any) -> Arrays:
    """The moving averages of x's Gram matrices."""
    return tuple(if_finite(ema(f, gram(x, axis), decay), f) for f, axis in zip(factors, axes, strict=True))


def eigenbasis(matrix: jax.Array) -> jax.Array:
    """The eigenvectors of a symmetric matrix as columns, largest eigenvalue first; NaN if that fails.

    It is constant under differentiation: the derivative of eigenvectors is infinite where eigenvalues coincide.
    """
    return jnp.linalg.eigh(jax.lax.stop_gradient(matrix))[1][:, ::-1]


def power_step(matrix: jax.Array, basis: jax.Array) -> jax.Array:
    """One step of orthogonal iteration towards the eigenvectors, from a basis near them: QR(matrix basis).Q.

    Constant under differentiation as `eigenbasis` is.
    """
    product = jnp.matmul(matrix, basis, precision=HIGHEST)
    return jnp.linalg.qr(jax.lax.stop_gradient(product))[0]


def taken(new: Any, old: Any, failures: jax.Array) -> tuple[Any, jax.Array]:
    """Trees of stacks of matrices, of which those that are not finite are the old ones: their decomposition failed.

    Also how often in a row at least one has failed.
    """
    finite = jax.tree.map(lambda x: jnp.all(jnp.isfinite(x), axis=(-2, -1), keepdims=True), new)
    every = [jnp.all(x) for x in jax.tree.leaves(finite)]
    failures = jnp.where(jnp.all(jnp.stack(every)), 0, failures + 1) if every else failures
    return jax.tree.map(jnp.where, finite, new, old), failures


def turned(factors: Arrays, bases: Arrays, failures: jax.Array, moved: Arrays, axes: Axes) -> tuple:
    """Bases one `power_step` on, what is `taken`, and what has coordinates in the old bases in the new ones."""
    new, failures = taken(tuple(map(power_step, factors, bases)), bases, failures)
    moved = tuple(into_bases(out_of_bases(x, bases, axes), new, axes) for x in moved)
    return moved, new, failures


def no_failures() -> jax.Array:
    return jnp.zeros([], jnp.int32)


def failed_roots(failures: Any) -> dict[str, jax.Array]:
    """The metric of states: how often in a row the decompositions of the worst parameter have failed."""
    found = [jnp.max(x, initial=0) for x in jax.tree.leaves(failures)]
    return {"failed_roots": jnp.max(jnp.stack(found)) if found else no_failures()}


def is_due(n: jax.Array, frequency: int, turn: tuple[int, int] = (0, 1)) -> jax.Array:
    """Whether work that is done at every `frequency`-th step is due at step n.

    Args:
      turn: which of how many take turns: the first one is due at multiples of `frequency`, the others in between.
    """
    number, count = turn
    return (n + number * frequency // count) % frequency == 0


class Whitening(NamedTuple):
    """Factors that make the gradient white, each estimated on a gradient that the others have made so (KL).

    For each axis with a basis a factor and the basis, and for each axis whatsoever the eigenvalues, those of the
    diagonal where there is no basis. `failures` is as in `taken`.
    """

    factors: Arrays
    eigenvalues: Arrays
    bases: Arrays
    failures: jax.Array


def initial_whitening(p: jax.Array, axes: Axes, init: Any) -> Whitening:
    """What is there before the first gradient: all eigenvalues are `init`."""
    values = tuple(jnp.full(n, init, jnp.real(p).dtype) for n in p.shape or (1,))
    return Whitening(zeros_of(p, axes), values, identities_of(p, axes), no_failures())


def first_whitening(w: Whitening, g: jax.Array, axes: Axes, decay: Any) -> Whitening:
    """Factors of the first gradient, and bases that stay until the next `power_step`."""
    grown = []
    for factor, axis in zip(w.factors, axes, strict=True):
        rest = max(g.size // g.shape[axis], 1)
        grown.append(if_finite(ema(factor, gram(g, axis) / rest, decay), factor))
    bases, failures = taken(tuple(map(eigenbasis, grown)), w.bases, w.failures)
    return w._replace(factors=tuple(grown), bases=bases, failures=failures)


def gains_of(w: Whitening, largest: Any) -> Arrays:
    """1 / sqrt(eigenvalues) for each axis, shaped to broadcast; at most max(10, min(length of the axis, largest))."""
    found = []
    for axis, values in enumerate(w.eigenvalues):
        limit = jnp.maximum(10, jnp.minimum(values.size, largest))
        gain = 1 / jnp.maximum(safe_sqrt(values), 1 / limit)
        found.append(gain.reshape([-1 if i == axis else 1 for i in range(len(w.eigenvalues))]))
    return tuple(found)


def next_whitening(w: Whitening, r: jax.Array, gains: Arrays, axes: Axes, decay: Any) -> Whitening:
    """The averages after a gradient with coordinates r, of which each axis sees what the others' gains have made."""
    factors, values, places = list(w.factors), list(w.eigenvalues), range(r.ndim)
    for axis in places:
        rest = [i for i in places if i != axis]
        white = math.prod([gains[i] for i in rest], start=r)
        new = ema(values[axis], jnp.mean(abs_sq(white), rest), decay)
        values[axis] = if_finite(new, values[axis])
        if axis in axes:
            i = axes.index(axis)
            of_basis = gram(white, axis) / max(r.size // r.shape[axis], 1)
            square = along(along(of_basis, jnp.conj(w.bases[i]), 1), w.bases[i], 0)
            factors[i] = if_finite(ema(factors[i], square, decay), factors[i])
    return w._replace(factors=tuple(factors), eigenvalues=tuple(values))


def inverse_power(matrix: jax.Array, eps: Any, power: float) -> jax.Array:
    """(A + eps)^(-power) of a symmetric positive semidefinite A, by its eigenvalues.

    Constant under differentiation as `eigenbasis` is.
    """
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix))
    scaled = vectors * ((jnp.maximum(values, 0) + eps) ** -power)[None].astype(vectors.dtype)
    return jnp.matmul(scaled, adjoint(vectors), precision=HIGHEST)
