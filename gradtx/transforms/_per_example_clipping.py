# SPDX-License-Identifier: Apache-2.0
"""Clipping of per-example gradients: functions from a batch of gradients to the sum of the clipped ones.

The stage `differentially_private_aggregate` also adds noise.
"""

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import Tree
from gradtx.core._ranges import Range
from gradtx.core._trees import is_hole, is_none
from gradtx.core._types import Updates
from gradtx.numerics._examples import check_examples, example_norms, weighted_sum
from gradtx.numerics._safe import shrink_factor

Clip = Annotated[Any, Range(low=0.0, low_open=True, endless=True, many=True)]


@checked
def per_example_global_norm_clip(grads: Tree, l2_norm_clip: Clip) -> tuple[Updates, jax.Array]:
    """Σ_i g_i min(1, l2_norm_clip / ‖g_i‖) over the examples i, and the number of examples clipped.

    The norm of an example is over all its gradients together. Sums are in at least float32.

    Args:
      grads: gradients whose first axis is that of the examples: `jax.vmap(jax.grad(loss), in_axes=(None, 0))`.
      l2_norm_clip: the largest norm of one example; a number or a scalar array, positive.

    Returns:
      A tree of sums with the parameters' shapes, and an int32 scalar.

    Raises:
      ValueError: if a gradient has no axis of examples, or the numbers of examples differ.

    Reference: Abadi et al. 2016, arXiv:1607.00133, algorithm 1.
    """
    where = "per_example_global_norm_clip"
    limit = _checked(where, "l2_norm_clip", l2_norm_clip)
    leaves, treedef, live = _examples(where, grads)
    if not live:
        return grads, jnp.zeros([], jnp.int32)
    norms = example_norms([leaves[i] for i in live])
    limit = limit.astype(norms.dtype)
    factors = shrink_factor(norms, limit)
    for i in live:
        leaves[i] = weighted_sum(leaves[i], factors)
    return jax.tree.unflatten(treedef, leaves), _count(norms > limit)


@checked
def per_example_layer_norm_clip(
    grads: Tree, global_l2_norm_clip: Clip, uniform: bool = True
) -> tuple[Updates, Updates]:
    """Σ_i g_i min(1, C_l / ‖g_i‖) for each of the L leaves l separately, and the number of examples clipped there.

    ```
    uniform:      C_l = global_l2_norm_clip / sqrt(L)
    not uniform:  C_l = global_l2_norm_clip sqrt(n_l / Σ n_l), n_l being the size of the parameter
    ```

    Either way the norm of a clipped example over all leaves is at most `global_l2_norm_clip`.

    Args:
      grads: gradients whose first axis is that of the examples: `jax.vmap(jax.grad(loss), in_axes=(None, 0))`.
      global_l2_norm_clip: the largest norm of one example over all leaves; a number or a scalar array, positive.
      uniform: whether all leaves have the same limit C_l, or limits in proportion to the root of their size.

    Returns:
      A tree of sums with the parameters' shapes, and one of int32 scalars.

    Raises:
      ValueError: if a gradient has no axis of examples, or the numbers of examples differ.

    Reference: McMahan et al. 2018, arXiv:1710.06963, section 3.
    """
    where = "per_example_layer_norm_clip"
    limit = _checked(where, "global_l2_norm_clip", global_l2_norm_clip)
    leaves, treedef, live = _examples(where, grads)
    sizes = {i: math.prod(jnp.shape(leaves[i])[1:]) for i in live}
    total, counts = max(sum(sizes.values()), 1), list(leaves)
    for i in live:
        norms = example_norms([leaves[i]])
        share = (1 / len(live) if uniform else sizes[i] / total) ** 0.5
        own = limit.astype(norms.dtype) * share
        leaves[i] = weighted_sum(leaves[i], shrink_factor(norms, own))
        counts[i] = _count(norms > own)
    return jax.tree.unflatten(treedef, leaves), jax.tree.unflatten(treedef, counts)


def _checked(where: str, name: str, limit: Any) -> jax.Array:
    if callable(limit) or jnp.ndim(limit) != 0:
        raise TypeError(f"{where}: {name} must be a number or a scalar array, got {limit!r}")
    return jnp.asarray(limit)


def _examples(where: str, grads: Updates) -> tuple[list, Any, list[int]]:
    leaves, treedef = jax.tree.flatten(grads, is_leaf=is_none)
    live = [i for i, g in enumerate(leaves) if not is_hole(g)]
    check_examples(where, grads, leaves, live)
    return leaves, treedef, live


def _count(clipped: jax.Array) -> jax.Array:
    return jnp.sum(clipped, dtype=jnp.int32)
