# SPDX-License-Identifier: Apache-2.0
"""Skipping a step of a transformation: the shared code of `guard`, loss scaling and the conditional wrappers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core._branching import branch
from gradtx.core._over_devices import any_over
from gradtx.core._roles import by_names, closed, is_full_box, opened
from gradtx.core._trees import is_hole, is_none
from gradtx.core._types import OptState, Params, Updates


def run_if(
    take: Any,
    where: str,
    tx: Any,
    updates: Updates,
    state: OptState,
    params: Params,
    extra: dict[str, Any],
    otherwise: Callable[[jax.Array, Any], jax.Array] | None = None,
) -> tuple[Updates, OptState]:
    """`tx.update` if `take`, else zeros as updates and the state unchanged. Only one of the two branches runs.

    The new state has the dtypes of the old one, even if `tx` changes them.

    Args:
      where: the name of the wrapper, for errors.
      tx: a transformation whose `update` takes extra arguments.
      otherwise: `f(g, like) -> u`, which makes the update of a skipped step, in the dtype of `like`; None for zeros.
    """
    seen = jax.tree.map(lambda g: None if is_hole(g) else g, updates, is_leaf=is_none)

    def run() -> tuple[Updates, OptState]:
        new, new_state = tx.update(seen, state, params, **extra)
        new = jax.tree.map(jnp.asarray, new)
        if otherwise is not None:
            new = _same_trees(where, _wider, new, seen, "updates of another structure than the gradients")
        return new, _same_trees(where, _as_before, new_state, state, "a state of another structure than it was given")

    run_once = jax.jit(run) if isinstance(take, Tracer) else run  # traced for its types, and not again where it runs

    def skip() -> tuple[Updates, OptState]:
        like, _ = jax.eval_shape(run_once)
        if otherwise is not None:
            return jax.tree.map(otherwise, seen, like), state
        # Made from the abstract updates, so that they have the same sharding and vary over the same mesh axes.
        return jax.tree.map(jnp.zeros_like, like), state

    return branch(take, run_once, skip)


def all_finite(tree: Any, axis_name: Any = None) -> jax.Array:
    """Whether all floats in a tree are finite, on all devices along the axis; integers and holes count as finite."""
    parts = by_names(floating_leaves(tree))
    finite = ~any_over({names: ~_all_finite(leaves) for names, leaves in parts.items()})
    if axis_name is None:
        return finite
    return jax.lax.psum(jnp.where(finite, 0, 1), axis_name) == 0


def _all_finite(leaves: list[jax.Array]) -> jax.Array:
    flags = [jnp.all(jnp.isfinite(x)) for x in leaves]
    return jnp.all(jnp.stack(flags)) if flags else jnp.asarray(True)


def floating_leaves(tree: Any) -> list[Any]:
    """The floating-point and complex leaves, which could be non-finite; in the boxes that they have."""
    leaves = [x for x in jax.tree.leaves(tree, is_leaf=is_full_box) if not is_hole(opened(x))]
    leaves = [closed(x, jnp.asarray(opened(x))) for x in leaves]
    return [x for x in leaves if jnp.issubdtype(opened(x).dtype, jnp.inexact)]


def select(take: Any, new: Any, old: Any) -> Any:
    """`new` if `take`, else `old`, in the dtypes of `old`; values that are not taken have no effect, NaNs included."""
    return jax.tree.map(lambda n, o: jnp.where(take, _as_before(n, o), o), new, old)


def _as_before(new: Any, old: Any) -> Any:
    dtype = jnp.result_type(old)
    new = new if isinstance(new, jax.Array) else jnp.asarray(new)
    return new if new.dtype == dtype and not getattr(new, "weak_type", False) else new.astype(dtype)  # keys lack it


def _wider(u: jax.Array, g: Any) -> jax.Array:
    """The update in a dtype to which both it and the gradient can be promoted."""
    with jax.numpy_dtype_promotion("standard"):
        return u.astype(jnp.promote_types(u.dtype, jnp.result_type(g)))


def _same_trees(where: str, f: Callable, new: Any, old: Any, fault: str) -> Any:
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(
            f"{where}: the inner transformation returned {fault}, so a step could not be left out: "
            f"{jax.tree.structure(new)} instead of {jax.tree.structure(old)}"
        )
    return jax.tree.map(f, new, old)
