# SPDX-License-Identifier: Apache-2.0
"""Per-example gradients: arrays whose first axis is that of the examples of a batch."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._rescaling import in_range
from gradtx.core._trees import align, is_none, paths
from gradtx.core._types import Params, Updates
from gradtx.numerics._safe import abs_sq, norm_of


def example_norms(gradients: list) -> jax.Array:
    """‖g_i‖ of each example i over several arrays together, in at least float32."""
    dtype = compute_dtype([jnp.asarray(g) for g in gradients])

    def total(scale: jax.Array | None = None) -> jax.Array:
        return jnp.sum(jnp.stack([_squares(g, scale).astype(dtype) for g in gradients]), axis=0)

    return norm_of(in_range(total(), total))


@jax.jit
def _squares(g: jax.Array, scale: jax.Array | None) -> jax.Array:
    """‖g_i / scale_i‖² of each example i; a scale of None is 1."""
    wide = widen(g)
    if scale is not None:
        with promotion(wide):
            wide = wide / scale.astype(jnp.real(wide).dtype).reshape(-1, *(1,) * (wide.ndim - 1))
    return jnp.sum(abs_sq(wide), axis=tuple(range(1, wide.ndim)))


@jax.jit
def weighted_sum(g: jax.Array, weights: jax.Array) -> jax.Array:
    """Σ_i weights_i g_i over the examples i, in at least float32."""
    g, weights = widen((g, weights), compute_dtype(g))
    with promotion(g):
        return jnp.tensordot(weights, g, axes=1, precision="highest")


def check_examples(where: str, updates: Updates, leaves: list, live: list[int], params: Params = None) -> None:
    """Raises at the first gradient that has no first axis of examples, or a number of examples unlike the others'.

    Args:
      leaves, live: the leaves of `updates`, None included, and the positions of those that are gradients.
      params: if given, the shapes of gradients behind the first axis must be those of the parameters.
    """
    treedef = jax.tree.structure(updates, is_leaf=is_none)
    ps: list[Any] = leaves
    if params is not None:
        ps = align(treedef, params, where, "the parameters", updates, "the gradients")
    sizes = {jnp.shape(leaves[i])[:1] for i in live}
    for i in live:
        shape = jnp.shape(leaves[i])
        if not shape or (params is not None and shape[1:] != jnp.shape(ps[i])):
            raise ValueError(
                f"{where}: the gradient at {paths(updates)[i]} has shape {shape}"
                f"{'' if params is None else f', its parameter has shape {jnp.shape(ps[i])}'}; the first axis must be "
                f"the examples of the batch: jax.vmap(jax.grad(loss), in_axes=(None, 0))"
            )
        if len(sizes) > 1 or shape[0] == 0:
            raise ValueError(
                f"{where}: the gradients must have the same number of examples, at least 1, as their first axis: "
                f"got {shape} at {paths(updates)[i]}"
            )
