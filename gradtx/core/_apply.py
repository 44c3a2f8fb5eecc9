# SPDX-License-Identifier: Apache-2.0
"""Applying updates to parameters."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._calling import compiled_outside
from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._kinds import Tree
from gradtx.core._operations import add
from gradtx.core._trees import align_leaves, check_shapes, is_hole, is_none, paths
from gradtx.core._types import Params


@checked
def apply_updates(params: Params, updates: Tree) -> Params:
    """`params + updates`, each leaf in the dtype of its parameter.

    The sum is computed in the widest of float32 and the dtypes of parameter and update, then rounded once. Where the
    update is None, the parameter is returned unchanged; where the parameter is None, it stays so.

    Raises:
      ValueError: if the trees or the shapes differ; nothing is broadcast.
      TypeError: for parameters that the update cannot move: booleans, random keys, whole numbers by a fraction.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    ps = align_leaves(treedef, params, "apply_updates", "the parameters", updates, "the updates")
    leaves = [None if p is None else u for p, u in zip(ps, leaves, strict=True)]
    check_shapes("apply_updates", "update", updates, leaves, ps)
    for i, (p, u) in enumerate(zip(ps, leaves, strict=True)):
        if not (is_hole(u) or jnp.issubdtype(p.dtype if hasattr(p, "dtype") else type(p), jnp.inexact)):
            _check_whole(p, u, paths(updates)[i])
    new = [p if is_hole(u) else _add(p, u) for p, u in zip(ps, leaves, strict=True)]
    return jax.tree.unflatten(treedef, new)


def _check_whole(p: Any, u: Any, path: str) -> None:
    """Raises an error unless both are whole numbers."""
    if isinstance(p, str):
        raise TypeError(f"apply_updates: the parameter at {path} must be an array, got {p!r}")
    have, given = jnp.result_type(p), jnp.result_type(u)
    if not (jnp.issubdtype(have, jnp.integer) and jnp.issubdtype(given, jnp.integer)):
        raise TypeError(
            f"apply_updates: the parameter at {path} is {have} and cannot take an update of {given}: give it None as "
            f"gradient, or leave it out of the parameters"
        )


@compiled_outside
def _add(p: Any, u: Any) -> jax.Array:
    wide_p, wide_u = widen((p, u), compute_dtype(p, u))
    with promotion(p, u):
        new = add(wide_p, wide_u)
    dtype = jnp.result_type(p)
    return new if new.dtype == dtype else new.astype(dtype)
