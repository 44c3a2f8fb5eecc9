# SPDX-License-Identifier: Apache-2.0
"""States in the layout of another library, or in none: the middle of a run goes on elsewhere."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._sentences import listed
from gradtx.core._transformation import check_transformation
from gradtx.core._trees import show_path
from gradtx.core._types import OptState, Params
from gradtx.core._unwrapping import children
from gradtx.wrappers._flattening import FlattenState
from gradtx.wrappers._multi_steps import MultiStepsState


@checked
def carry_state(state: OptState, tx: Any, params: Params) -> OptState:
    """The same state in the layout of `tx`, which is the same call in gradtx or in Optax; for both directions.

    Most states need nothing of the kind, as they are laid out alike. Those of `MultiSteps`, of `flatten`, of
    `partition` with labels for whole branches, and of `lbfgs` under x64 are not, nor are states that were restored as
    dictionaries and lists. Every number is kept, in the dtype that it has in `tx`. `gradtx.migrate` is for another
    optimizer or model.

    Args:
      state: the state of the other library, or what a checkpoint without classes has of either.
      tx: the transformation that goes on.
      params: the parameters, or their shapes.

    Raises:
      ValueError: for parts that `state` lacks or that have another shape, with the path.
    """
    check_transformation("carry_state: tx", tx)
    return _carried(state, jax.eval_shape(tx.init, params), ())


def _carried(given: Any, like: Any, path: tuple) -> Any:
    """What is `given` at this path, in the layout of `like`."""
    if not jax.tree.leaves(like):  # remembers nothing: hidden parameters, stages without a state
        return like
    if jax.tree_util.all_leaves([like]):
        return _array(given, like, path)
    if getattr(like, "_fields", None) == MultiStepsState._fields:
        return _multi_steps(given, like, path)
    if isinstance(like, FlattenState):
        return _flattened(given, like, path)
    wanted, found = _named(like), _named(given)
    if isinstance(given, FlattenState) or set(found) == {"inner_state"} and "inner_state" not in wanted:
        return _carried(found["inner_state"], like, (*path, jax.tree_util.DictKey("inner_state")))
    lacking = [name for name, child in wanted.items() if jax.tree.leaves(child) and name not in found]
    if lacking:
        raise ValueError(
            f"carry_state: at {show_path(path)} the state lacks {listed(lacking)}; "
            f"it has {listed(list(found)) or type(given).__name__}"
        )
    treedef = jax.tree.structure(like, is_leaf=lambda x: x is not like)
    return treedef.unflatten(
        [_carried(found.get(n), child, (*path, jax.tree_util.DictKey(n))) for n, child in wanted.items()]
    )


def _flattened(given: Any, like: FlattenState, path: tuple) -> FlattenState:
    """The state of `flatten`, which in Optax is that of the inner transformation as it is."""
    found = _named(given)
    if set(found) == {"inner_state"}:
        below = (*path, jax.tree_util.DictKey("inner_state"))
        with contextlib.suppress(ValueError):  # it may be that of `masked` inside, from Optax
            return FlattenState(_carried(found["inner_state"], like.inner_state, below))
    return FlattenState(_carried(given, like.inner_state, path))


def _array(given: Any, like: Any, path: tuple) -> Any:
    if jnp.shape(given) != like.shape or not jax.tree_util.all_leaves([given]):
        raise ValueError(f"carry_state: at {show_path(path)} the state must have an array of shape {like.shape}")
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    return given if is_key else jnp.asarray(given).astype(like.dtype)


def _multi_steps(given: Any, like: Any, path: tuple) -> Any:
    """The state of `MultiSteps`: gradtx counts the gradients that it keeps and drops, Optax has only the last report.

    Optax makes no call of a gradient that it drops, and adds the first of a round to a mean of zeros.
    """
    found = _named(given)
    names = ("mini_step", "gradient_step", "inner_opt_state", "acc_grads")
    parts = {n: _carried(found[n], getattr(like, n), (*path, jax.tree_util.DictKey(n))) for n in names if n in found}
    if len(parts) < len(names):
        raise ValueError(f"carry_state: at {show_path(path)} the state lacks fields of {type(like).__name__}")
    began = parts["mini_step"] > 0
    micro, report = _named(found.get("skip_state")), found.get("skip_state")
    if "kept" in micro:
        kept, skipped, report = micro["kept"], micro["skipped"], micro["report"]
        averages = micro.get("averages")
    else:
        kept = jnp.where(began, parts["mini_step"], parts["gradient_step"] > 0)
        skipped, averages = jnp.zeros([], jnp.int32), None
    below = (*path, jax.tree_util.DictKey("skip_state"))
    wanted = like.skip_state
    if "kept" in getattr(wanted, "_fields", ()):
        counts = {"kept": kept, "skipped": skipped, "report": report, "averages": averages}
        return type(like)(**parts, skip_state=_carried(counts, wanted, below))
    parts["mini_step"] = jnp.where(began, kept, 0).astype(like.mini_step.dtype)
    parts["acc_grads"] = jax.tree.map(lambda x: jnp.where(began, x, jnp.zeros_like(x)), parts["acc_grads"])
    return type(like)(**parts, skip_state=_carried(report, wanted, below))


def _named(given: Any) -> dict[str, Any]:
    """The children of a node by name, also of the dictionaries and lists that stand for it in a checkpoint."""
    if isinstance(given, Mapping) and not isinstance(given, dict):
        return {str(name): child for name, child in given.items()}
    if given is None or jax.tree_util.all_leaves([given]):
        return {}
    return {jax.tree_util.keystr((key,), simple=True): child for key, child in children(given)}
