# SPDX-License-Identifier: Apache-2.0
"""Lanczos' method: a small tridiagonal matrix that approximates a symmetric one, from products with it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike
from gradtx.core._ranges import PositiveInt
from gradtx.numerics._safe import safe_divide

HIGHEST = jax.lax.Precision.HIGHEST


@checked
def lanczos(
    times: Callable[[jax.Array], jax.Array], v0: ArrayLike, num_iters: PositiveInt
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The diagonal (k,) and off-diagonal (k - 1,) of T = Vᵀ A V, and V of shape (n, k) with first column v0 / ‖v0‖.

    If the products span fewer than k dimensions, the rest of V and of the off-diagonal is 0, and the rest of the
    diagonal repeats its first number, so that it adds no extreme eigenvalue.

    Args:
      times: the function v -> A v for a symmetric matrix A.
      v0: the initial vector, of shape (n,), not 0.
      num_iters: k, the number of products, at least 1.

    Raises: ValueError if `num_iters` is below 1.
    """
    if num_iters < 1:
        raise ValueError(f"lanczos: num_iters must be at least 1, got {num_iters}")
    limit = 100 * jnp.finfo(v0.dtype).eps  # a smaller rest after orthogonalization is rounding error

    def step(carry: tuple, i: jax.Array) -> tuple[tuple, tuple]:
        basis, v, first, size = carry
        basis = basis.at[:, i].set(v)
        product = times(v)
        alpha = jnp.sum(v * product)
        alive = jnp.any(v != 0)
        first = jnp.where(i == 0, alpha, first)
        size = jnp.maximum(size, jnp.sqrt(jnp.sum(product * product)))
        rest = product
        for _ in range(2):  # once would leave rounding errors, which grow into copies of eigenvalues
            overlap = jnp.matmul(basis.T, rest, precision=HIGHEST)
            rest = rest - jnp.matmul(basis, overlap, precision=HIGHEST)
        beta = jnp.sqrt(jnp.sum(rest * rest))
        beta = jnp.where(alive & (beta > limit * size), beta, 0)
        following = jnp.where(beta > 0, safe_divide(rest, beta), 0)
        return (basis, following, first, size), (jnp.where(alive, alpha, first), beta)

    v = safe_divide(v0, jnp.sqrt(jnp.sum(v0 * v0)))
    zero = jnp.zeros([], v0.dtype)
    start = (jnp.zeros((v0.size, num_iters), v0.dtype), v, zero, zero)
    (basis, *_), (diagonal, off_diagonal) = jax.lax.scan(step, start, jnp.arange(num_iters, dtype=jnp.int32))
    return diagonal, off_diagonal[:-1], basis


def tridiagonal_spectrum(diagonal: jax.Array, off_diagonal: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The eigenvalues of a symmetric tridiagonal matrix, and the squares of the first components of its eigenvectors.

    For the T of `lanczos` they are the nodes and weights of a Gauss quadrature: Σ weights f(nodes) = vᵀ f(A) v for
    polynomials f of degree below 2 k.
    """
    matrix = jnp.diag(diagonal) + jnp.diag(off_diagonal, 1) + jnp.diag(off_diagonal, -1)
    nodes, vectors = jnp.linalg.eigh(matrix)
    return nodes, jnp.square(vectors[0])
