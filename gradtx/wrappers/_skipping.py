# SPDX-License-Identifier: Apache-2.0
"""Steps that may not be taken: what `guard`, loss scaling and the conditional wrappers have in common."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._trees import is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._branching import branch


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
    """`tx.update` where `take`; else its state as it was, and zeros for updates. Only what is needed runs.

    The new state gets the types of the old one, whatever `tx` makes of them. `where` names the wrapper in errors.

    Args:
      tx: a transformation whose `update` takes extra arguments.
      otherwise: `f(g, like) -> u`, the update instead of zero: an array of the type `like`.
    """
    seen = jax.tree.map(lambda g: None if is_hole(g) else g, updates, is_leaf=is_none)

    def run() -> tuple[Updates, OptState]:
        new, new_state = tx.update(seen, state, params, **extra)
        new = jax.tree.map(jnp.asarray, new)
        if otherwise is not None:
            new = _same_trees(where, _wider, new, seen, "updates of another structure than the gradients")
        return new, _same_trees(where, _as_before, new_state, state, "a state of another structure than it was given")

    def skip() -> tuple[Updates, OptState]:
        like, _ = jax.eval_shape(run)
        if otherwise is not None:
            return jax.tree.map(otherwise, seen, like), state
        # Of an abstract value, so that they are sharded and vary over mesh axes as the updates are and do.
        return jax.tree.map(jnp.zeros_like, like), state

    return branch(take, run, skip)


def all_finite(tree: Any, axis_name: Any = None) -> jax.Array:
    """Whether every number of a tree is finite, on all devices along the axis; holes and whole numbers are."""
    flags = [jnp.all(jnp.isfinite(x)) for x in floating_leaves(tree)]
    finite = jnp.all(jnp.stack(flags)) if flags else jnp.asarray(True)
    if axis_name is None:
        return finite
    return jax.lax.psum(jnp.where(finite, 0, 1), axis_name) == 0


def floating_leaves(tree: Any) -> list[jax.Array]:
    """The leaves that could be other than finite."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree) if not is_hole(x)]
    return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]


def select(take: Any, new: Any, old: Any) -> Any:
    """`new` where `take`, else `old`, whose dtypes the result has. Nothing of what is not taken gets through."""
    return jax.tree.map(lambda n, o: jnp.where(take, _as_before(n, o), o), new, old)


def _as_before(new: Any, old: Any) -> Any:
    dtype = jnp.result_type(old)
    new = new if isinstance(new, jax.Array) else jnp.asarray(new)
    return new if new.dtype == dtype and not getattr(new, "weak_type", False) else new.astype(dtype)  # keys have none


def _wider(u: jax.Array, g: Any) -> jax.Array:
    """The update in a dtype that holds the gradient too."""
    with jax.numpy_dtype_promotion("standard"):
        return u.astype(jnp.promote_types(u.dtype, jnp.result_type(g)))


def _same_trees(where: str, f: Callable, new: Any, old: Any, fault: str) -> Any:
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(
            f"{where}: the inner transformation returned {fault}, so a step could not be left out: "
            f"{jax.tree.structure(new)} instead of {jax.tree.structure(old)}"
        )
    return jax.tree.map(f, new, old)
