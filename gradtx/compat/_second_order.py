# SPDX-License-Identifier: Apache-2.0
"""Hessian-vector products and diagonals with Optax's arguments: for losses of parameters, inputs and targets."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gradtx.core._dtypes import compute_dtype, widen
from gradtx.curvature._curvature import check_floating, hessian_diagonal, hessian_vector_product


def hvp(loss: Callable[..., jax.Array], v: Any, params: Any, inputs: Any, targets: Any) -> Any:
    """H v for the Hessian H of `loss(params, inputs, targets)`, a tree like the parameters.

    Args:
      loss: a function of (params, inputs, targets) that returns a scalar.
      v: a tree like the parameters, or one vector with all their elements.
      inputs, targets: the other arguments of the loss.
    """
    check_floating("hvp", params)
    flat, unravel = ravel_pytree(params)
    single = isinstance(v, jax.Array) or not jax.tree_util.all_leaves([v])
    if single and hasattr(v, "shape") and jax.tree.structure(v) != jax.tree.structure(params):
        if v.shape != flat.shape:
            raise ValueError(f"hvp: v must be a tree like params or have shape {flat.shape}, got shape {v.shape}")
        v = unravel(v.astype(flat.dtype))
    return hessian_vector_product(lambda p: loss(p, inputs, targets), params, v)


def hessian_diag(loss: Callable[..., jax.Array], params: Any, inputs: Any, targets: Any) -> jax.Array:
    """The diagonal of the Hessian of `loss(params, inputs, targets)` as one vector.

    Args:
      loss: a function of (params, inputs, targets) that returns a scalar.
      inputs, targets: the other arguments of the loss.
    """
    return ravel_pytree(hessian_diagonal(lambda p: loss(p, inputs, targets), params))[0]


def fisher_diag(negative_log_likelihood: Callable[..., jax.Array], params: Any, inputs: Any, targets: Any) -> jax.Array:
    """The squares of the gradient of `negative_log_likelihood(params, inputs, targets)` as one vector.

    For one example, it is the diagonal of the empirical Fisher information. For a batch it is the square of a sum (or
    mean), not the sum of squares: `jax.vmap` this function over examples, and take the mean.

    Args:
      negative_log_likelihood: a function of (params, inputs, targets) that returns a scalar.
      inputs, targets: the other arguments of that function.
    """
    check_floating("fisher_diag", params)
    gradient = ravel_pytree(jax.grad(negative_log_likelihood)(params, inputs, targets))[0]
    return jnp.square(widen(gradient, compute_dtype(gradient)))
