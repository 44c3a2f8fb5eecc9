# SPDX-License-Identifier: Apache-2.0
"""Matrices: the largest eigenvalue, inverse roots, nonnegative least squares."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._dtypes import widen
from gradtx.core._kinds import ArrayLike, Key, Precision, Tree
from gradtx.core._ranges import NonNegative, Positive, PositiveInt, Whole
from gradtx.core._trees import align
from gradtx.numerics._safe import safe_divide, safe_sqrt

HIGHEST = jax.lax.Precision.HIGHEST


@checked
def power_iteration(
    matrix: Any,
    *,
    v0: Tree | None = None,
    num_iters: Whole = 100,
    error_tolerance: NonNegative = 1e-6,
    precision: Precision = HIGHEST,
    key: Key | None = None,
) -> tuple[jax.Array, Any]:
    """The eigenvalue of largest magnitude of a symmetric matrix A, with its sign, and an eigenvector of norm 1.

    v = A v / ‖A v‖ until ‖A v - λ v‖ <= error_tolerance |λ|, where λ = ⟨v, A v⟩.

    Args:
      matrix: A, or a function v -> A v on trees, for which `v0` is needed.
      v0: the initial vector, not 0; None for a random one.
      num_iters: the largest number of products with A.
      error_tolerance: the relative error at which the iteration stops; at least 0.
      precision: of the products with a matrix, as in `jnp.matmul`.
      key: the random key for `v0`; None for `jax.random.key(0)`.

    Raises:
      ValueError: for a matrix that is not square, or a function without `v0`.
    """
    times = matrix
    if not callable(matrix):
        square = _square("power_iteration", matrix)
        times = lambda v: jnp.matmul(square, v, precision=precision)  # noqa: E731  # a function as if given
        if v0 is None:
            key = jax.random.key(0) if key is None else key
            v0 = jax.random.normal(key, square.shape[:1], square.dtype)
    elif v0 is None:
        raise ValueError("power_iteration: a matrix that is a function needs v0, a tree like its argument")
    v0 = jax.tree.map(widen, v0)

    def state_at(v: Any) -> tuple:
        product = times(v)
        product = jax.tree.map(lambda x, y: jnp.asarray(y).astype(x.dtype), v, _like(v, product))
        largest = _largest(product)  # so that squares neither overflow nor underflow
        product = jax.tree.map(lambda x: safe_divide(x, largest.astype(x.dtype)), product)
        value = _dot(v, product)
        rest = jax.tree.map(lambda x, y: y - value.astype(x.dtype) * x, v, product)
        return v, product, largest * value, _norm(rest) > error_tolerance * jnp.abs(value)

    def unfinished(carry: tuple) -> jax.Array:
        i, (*_, inexact) = carry
        return inexact & (i < num_iters)

    def step(carry: tuple) -> tuple:
        i, (v, product, *_) = carry
        return i + 1, state_at(_unit(product, v))

    start = (jnp.ones([], jnp.int32), state_at(_unit(v0, v0)))
    _, (v, _, value, _) = jax.lax.while_loop(unfinished, step, start)
    return value, v


def _like(v: Any, product: Any) -> Any:
    leaves, treedef = jax.tree.flatten(v)
    return treedef.unflatten(align(treedef, product, "power_iteration", "the products", v, "the vectors"))


def _dot(a: Any, b: Any) -> jax.Array:
    products = [jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return sum(products[1:], start=products[0])


def _largest(tree: Any) -> jax.Array:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree)]))


def _norm(tree: Any) -> jax.Array:
    return safe_sqrt(_dot(tree, tree))


def _unit(tree: Any, otherwise: Any) -> Any:
    """The tree divided by its norm; `otherwise` if that is 0, so that a matrix of zeros has the eigenvalue 0."""
    largest = _largest(tree)
    small = jax.tree.map(lambda x: safe_divide(x, largest.astype(x.dtype)), tree)
    norm = _norm(small)
    return jax.tree.map(lambda x, y: jnp.where(norm > 0, safe_divide(x, norm), y), small, otherwise)


@checked
def matrix_inverse_pth_root(
    matrix: ArrayLike,
    p: PositiveInt,
    num_iters: Whole = 100,
    ridge_epsilon: NonNegative = 1e-6,
    error_tolerance: NonNegative = 1e-6,
    precision: Precision = HIGHEST,
) -> tuple[jax.Array, jax.Array]:
    """(A + ridge_epsilon λ I)^(-1/p) for a symmetric positive semidefinite A with largest eigenvalue λ, and the error.

    Coupled Newton iteration, from M = z A and X = z^(1/p) I with z = (1 + p) / (2 λ): matrix products only.

    ```
    T = ((p + 1) I - M) / p        M = T^p M        X = X T
    ```

    The error is max |M - I|, where M = X^p A in exact arithmetic. If it starts to grow, the result before is returned.

    Args:
      matrix: A, of shape (n, n).
      p: a whole number >= 1.
      num_iters: the largest number of iterations.
      ridge_epsilon: at least 0, a factor of λ; for A = 0 it is added as it is.
      error_tolerance: the error at which the iteration stops.
      precision: of the matrix products, as in `jnp.matmul`.

    References: Iannazzo 2006; Anil et al. 2020, arXiv:2002.09018 (Scalable Shampoo).
    """
    scaled, top, factor = _prepared("matrix_inverse_pth_root", matrix, p, ridge_epsilon, precision)
    n = scaled.shape[0]
    identity = jnp.eye(n, dtype=scaled.dtype)

    def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, precision=precision)

    def error_of(m: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(m - identity), initial=0)

    z = jnp.asarray((1 + p) / (2 * (1 + ridge_epsilon)), scaled.dtype) / top
    m = z * scaled

    def unfinished(carry: tuple) -> jax.Array:
        i, _, _, error, previous = carry
        return (i < num_iters) & (error > error_tolerance) & (error < 1.2 * previous)

    def step(carry: tuple) -> tuple:
        i, m, x, error, _ = carry
        t = ((p + 1) * identity - m) / p
        new = multiply(_power(t, p, multiply), m)
        new_error = error_of(new)
        better = new_error < 1.2 * error
        kept = jnp.where(better, multiply(x, t), x)
        return i + 1, new, kept, jnp.where(better, new_error, error), jnp.where(better, error, 0)

    first = error_of(m)
    start = (jnp.zeros([], jnp.int32), m, z ** (1 / p) * identity, first, jnp.full_like(first, jnp.inf))
    _, _, x, error, _ = jax.lax.while_loop(unfinished, step, start)
    return factor * x, error


@checked
def matrix_inverse_pth_root_eigh(
    matrix: ArrayLike, p: PositiveInt, ridge_epsilon: NonNegative = 1e-6, precision: Precision = HIGHEST
) -> tuple[jax.Array, jax.Array]:
    """`matrix_inverse_pth_root` by eigenvalues, Q (max(Λ, 0) + ridge_epsilon λ)^(-1/p) Qᵀ, with max |A Q - Q Λ| / λ.

    More accurate than Newton's iteration for ill-conditioned matrices, and slower on accelerators. The second result
    is its error.

    Args:
      matrix, p, ridge_epsilon, precision: as in `matrix_inverse_pth_root`.
    """
    where = "matrix_inverse_pth_root_eigh"
    scaled, top, factor = _prepared(where, matrix, p, 0.0, precision)
    values, vectors = jnp.linalg.eigh(scaled, symmetrize_input=False)
    error = jnp.max(jnp.abs(jnp.matmul(scaled, vectors, precision=precision) - vectors * values[None]), initial=0)
    top = jnp.max(values, initial=0)
    damped = jnp.maximum(values, 0) + ridge_epsilon * jnp.where(top > 0, top, 1)
    root = jnp.matmul(vectors * (damped ** (-1 / p))[None], vectors.T, precision=precision)
    return factor * root, safe_divide(error, top)


def _prepared(where: str, matrix: Any, p: Any, ridge: Any, precision: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(A / s + ridge λ I, λ, s^(-1/p)), where s is the largest magnitude of A and λ the largest eigenvalue of A / s.

    For A = 0, λ and s are 1, so that the root is ridge^(-1/p).
    """
    square = _square(where, matrix)
    largest = jnp.max(jnp.abs(square), initial=0)
    nothing = largest == 0
    scale = jnp.where(nothing, 1, largest)
    scaled = (square + square.T) * (0.5 / scale)
    top, _ = power_iteration(scaled, num_iters=100, precision=precision) if square.size else (scale, None)
    # The estimate comes from below. That is safe: Newton's iteration converges if it is more than half of λ.
    top = jnp.where(nothing, 1, jnp.abs(top))
    scaled = scaled + ridge * top * jnp.eye(square.shape[0], dtype=square.dtype)
    return scaled, top, scale ** (-1 / p)


def _square(where: str, matrix: Any) -> jax.Array:
    matrix = jnp.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{where}: matrix must be square, got shape {matrix.shape}; jax.vmap maps over other axes")
    return widen(matrix)


def _power(x: jax.Array, p: int, multiply: Callable) -> jax.Array:
    """x^p by squaring."""
    result = None
    while p:
        if p & 1:
            result = x if result is None else multiply(result, x)
        p >>= 1
        x = multiply(x, x) if p else x
    assert result is not None  # p >= 1
    return result


@checked
def nnls(A: ArrayLike, b: ArrayLike, iters: Whole, unroll: PositiveInt = 1, L: Positive | None = None) -> jax.Array:  # noqa: N803  # as in Optax
    """The x >= 0 with the smallest ‖A x - b‖, by Nesterov's accelerated projected gradient method from x = 0.

    ```
    x = max(y - Aᵀ(A y - b) / L, 0)        y = x + (t - 1) / t' (x - x before),    t' = (1 + sqrt(1 + 4 t²)) / 2
    ```

    The momentum is reset where it points uphill (O'Donoghue and Candès 2012).

    Args:
      A: of shape (m, n).
      b: of shape (m,), or (m, k) for k problems at once.
      iters: the number of steps.
      unroll: how many steps one iteration of the compiled loop contains.
      L: an upper bound of the largest eigenvalue of AᵀA; None for ‖AᵀA‖_F.

    Reference: Beck and Teboulle 2009, "A fast iterative shrinkage-thresholding algorithm".
    """
    a, y = jnp.asarray(A), jnp.asarray(b)
    a, y = widen((a, y))
    if a.ndim != 2 or y.ndim not in (1, 2) or y.shape[0] != a.shape[0]:
        raise ValueError(f"nnls: A must have shape (m, n) and b (m,) or (m, k), got {a.shape} and {y.shape}")
    columns = y[:, None] if y.ndim == 1 else y
    gram, target = jnp.matmul(a.T, a, precision=HIGHEST), jnp.matmul(a.T, columns, precision=HIGHEST)
    bound = _norm(gram) if L is None else jnp.asarray(L, a.dtype)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        x, ahead, t = carry
        slope = jnp.matmul(gram, ahead, precision=HIGHEST) - target
        new = jnp.maximum(ahead - safe_divide(slope, bound), 0)
        uphill = jnp.sum((ahead - new) * (new - x), axis=0) > 0
        following = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        moved = new + ((t - 1) / following)[None] * (new - x)
        return (new, jnp.where(uphill[None], new, moved), jnp.where(uphill, 1, following)), None

    x = jnp.zeros_like(target)
    (x, _, _), _ = jax.lax.scan(step, (x, x, jnp.ones_like(x[0])), length=iters, unroll=unroll)
    return x[:, 0] if y.ndim == 1 else x
