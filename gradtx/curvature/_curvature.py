# SPDX-License-Identifier: Apache-2.0
"""Curvature: products with the Hessian and Gauss-Newton matrices, diagonals and eigenvalues, without the matrices.

Losses are functions from a tree of floating parameters to a scalar; whole numbers among them raise a `ValueError` with
the path. Results that are trees have the structure and dtypes of the parameters.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._kinds import Key, Seed, Tree
from gradtx.core._ranges import NonNegative, PositiveInt, check_argument, specification
from gradtx.core._transformation import as_inner
from gradtx.core._trees import align_leaves
from gradtx.numerics._lanczos import lanczos, tridiagonal_spectrum
from gradtx.numerics._linear_algebra import power_iteration
from gradtx.transforms._hessian_diagonal import hutchinson_estimator_diag_hessian

Loss = Callable[[Any], jax.Array]


def check_floating(where: str, params: Any) -> None:
    """Raises at the first leaf of whole or complex numbers, and without any."""
    if not jax.tree.leaves(params):
        raise ValueError(f"{where}: the parameters must be floating arrays, got none")
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            at = jax.tree_util.keystr(path) or "the root"
            raise ValueError(
                f"{where}: the parameters must be floating, got {jnp.result_type(x)} at {at}, which has no derivative; "
                f"leave it out of the tree"
            )


def _check_alike(where: str, v: Any, params: Any) -> None:
    """Raises an error unless `v` is a tree like the parameters, of their shapes and dtypes."""
    leaves, treedef = jax.tree.flatten(params)
    for x, p in zip(align_leaves(treedef, v, where, "v", params, "the parameters"), leaves, strict=True):
        if (jnp.shape(x), jnp.result_type(x)) != (jnp.shape(p), jnp.result_type(p)):
            raise ValueError(
                f"{where}: v must be a tree like the parameters, {jnp.result_type(p)} of shape {jnp.shape(p)}, "
                f"got {jnp.result_type(x)} of shape {jnp.shape(x)}"
            )


@checked
def hessian_vector_product(loss: Loss, params: Tree, v: Tree) -> Any:
    """H v for the Hessian H of `loss` at the parameters: the derivative of the gradient along `v`.

    Args:
      loss: a function from the parameters to a scalar.
      v: a tree like the parameters.
    """
    check_floating("hessian_vector_product", params)
    _check_alike("hessian_vector_product", v, params)
    return jax.jvp(jax.grad(loss), (params,), (v,))[1]


@checked
def gauss_newton_vector_product(
    model: Callable[[Any], Any], loss: Callable[[Any], jax.Array], params: Tree, v: Tree
) -> Any:
    """Jᵀ H J v for the Jacobian J of `model` at the parameters and the Hessian H of `loss` at its outputs.

    For a convex loss this matrix has no negative eigenvalue. If the loss is the negative log-likelihood of an
    exponential family whose natural parameters are the outputs (squared error, cross-entropy of logits), it is the
    Fisher information matrix.

    Args:
      model: a function from the parameters to outputs, a tree of arrays.
      loss: a function from the outputs to a scalar.
      v: a tree like the parameters.
    """
    check_floating("gauss_newton_vector_product", params)
    _check_alike("gauss_newton_vector_product", v, params)
    outputs, along = jax.jvp(model, (params,), (v,))
    back = jax.vjp(model, params)[1]
    return back(hessian_vector_product(loss, outputs, along))[0]


@checked
def hessian_diagonal(loss: Loss, params: Tree, batch_size: PositiveInt = 32) -> Any:
    """The exact diagonal of the Hessian of `loss` at the parameters, from one Hessian-vector product for each element.

    Args:
      loss: a function from the parameters to a scalar.
      batch_size: how many products are computed at once, at least 1.
    """
    check_floating("hessian_diagonal", params)
    size = check_argument("hessian_diagonal", "batch_size", batch_size, specification(PositiveInt), False)  # type: ignore[arg-type]
    flat, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda x: loss(unravel(x)))

    def entry(i: jax.Array) -> jax.Array:
        unit = jnp.zeros_like(flat).at[i].set(1)
        return jax.jvp(gradient, (flat,), (unit,))[1][i]

    return unravel(jax.lax.map(entry, jnp.arange(flat.size), batch_size=size))


@checked
def hutchinson_diagonal(
    loss: Loss,
    params: Tree,
    key: Seed | None,
    num_samples: PositiveInt = 1,
    *,
    probes: Literal["rademacher", "normal"] = "rademacher",
) -> Any:
    """The mean of v * (H v) over independent random v, an unbiased estimate of the diagonal of the Hessian H.

    Args:
      loss: a function from the parameters to a scalar.
      num_samples: the number of random v, at least 1.
      probes: the distribution of v: "rademacher" (-1 or 1) or "normal".

    See also: `hutchinson_estimator_diag_hessian`, the same estimate as a stage.
    """
    check_floating("hutchinson_diagonal", params)
    count = check_argument("hutchinson_diagonal", "num_samples", num_samples, specification(PositiveInt), False)  # type: ignore[arg-type]
    tx = as_inner("hutchinson_diagonal", hutchinson_estimator_diag_hessian(key, probes=probes))

    def one(carry: tuple, _: None) -> tuple[tuple, None]:
        total, state = carry
        estimate, state = tx.update(params, state, params, obj_fn=loss)
        return (jax.tree.map(jnp.add, total, estimate), state), None

    zero = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), compute_dtype(jnp.asarray(p))), params)
    (total, _), _ = jax.lax.scan(one, (zero, tx.init(params)), length=count)
    return jax.tree.map(lambda x, p: (x / count).astype(jnp.asarray(p).dtype), total, params)


@checked
def top_eigenvalue(
    loss: Loss, params: Tree, key: Key, num_iters: PositiveInt = 100, error_tolerance: NonNegative = 1e-4
) -> tuple[jax.Array, Any]:
    """The eigenvalue of largest magnitude of the Hessian, with its sign, and its eigenvector, a tree of norm 1.

    Args:
      loss: a function from the parameters to a scalar.
      num_iters: the largest number of Hessian-vector products.
      error_tolerance: stops when ‖H v - λ v‖ <= error_tolerance |λ|.

    See also: `power_iteration`, which this runs from a random start.
    """
    check_floating("top_eigenvalue", params)
    flat, unravel = ravel_pytree(params)
    wide = widen(flat, compute_dtype(flat))
    times = _flat_product(loss, flat, unravel)
    v0 = jax.random.normal(key, wide.shape, wide.dtype)
    value, vector = power_iteration(times, v0=v0, num_iters=num_iters, error_tolerance=error_tolerance)
    return value, unravel(vector.astype(flat.dtype))


@checked
def hessian_spectrum(
    loss: Loss, params: Tree, key: Key, num_iters: PositiveInt = 30, num_samples: PositiveInt = 1
) -> tuple[jax.Array, jax.Array]:
    """Nodes and weights, of shape (num_samples, num_iters), of the spectral density of the Hessian, by Lanczos' method.

    For each random start, Σ weights f(nodes) estimates the mean of f(λ) over the eigenvalues λ. The smallest and the
    largest nodes converge to the extreme eigenvalues from inside.

    Args:
      loss: a function from the parameters to a scalar.
      num_iters: Hessian-vector products for each start, at least 1. As many vectors of the size of the parameters are
        kept in memory, to orthogonalize each new one against all before it.
      num_samples: the number of random starts, at least 1.

    Reference: Ghorbani, Krishnan and Xiao 2019, arXiv:1901.10159.
    """
    check_floating("hessian_spectrum", params)
    flat, unravel = ravel_pytree(params)
    wide = widen(flat, compute_dtype(flat))
    times = _flat_product(loss, flat, unravel)

    def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        v0 = jax.random.normal(key, wide.shape, wide.dtype)
        diagonal, off_diagonal, _ = lanczos(times, v0, num_iters)
        return tridiagonal_spectrum(diagonal, off_diagonal)

    return jax.lax.map(sample, jax.random.split(key, num_samples))


def _flat_product(loss: Loss, flat: jax.Array, unravel: Callable) -> Callable[[jax.Array], jax.Array]:
    """The function v -> H v on flat vectors in at least float32."""

    def times(v: jax.Array) -> jax.Array:
        return hessian_vector_product(lambda x: loss(unravel(x)), flat, v.astype(flat.dtype)).astype(v.dtype)

    return times
