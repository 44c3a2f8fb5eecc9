# SPDX-License-Identifier: Apache-2.0
"""The leaves of a tree that are of low precision, bfloat16 or float16, and the slots that are kept for them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._over_devices import on_leaf
from gradtx.core._roles import carried_split, closed, is_box, opened
from gradtx.core._trees import align, check_shapes, is_hole, is_leaf, paths
from gradtx.core._types import Params, Updates
from gradtx.numerics._rounding import LOW, is_low


def low_dtype(where: str, p: Any, path: str) -> Any:
    """The dtype of a parameter if it is of low precision, else None."""
    dtype = jnp.result_type(p)
    if is_low(dtype):
        return dtype
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
        known = " or ".join(jnp.dtype(x).name for x in LOW)
        raise ValueError(f"{where}: the parameter at {path} is of {dtype.name}; what can be rounded here is {known}")
    return None


def init_low(name: str, make: Callable[[Any], Any], params: Params) -> Any:
    """A tree with `make(p)` for the parameters of low precision, None for the others."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_leaf)
    held = [opened(p) for p in leaves]
    low = [p is not None and low_dtype(name, p, paths(params)[i]) is not None for i, p in enumerate(held)]
    return treedef.unflatten([make(p) if here else None for p, here in zip(held, low, strict=True)])


def update_low(
    name: str, step: Callable[..., Any], updates: Updates, params: Params, slots: Any = None
) -> tuple[Updates, Any]:
    """The updates and slots of `step(path, p, u, slot) -> (u, slot)` for each parameter of low precision.

    p comes in its own dtype, u in float32. All other updates pass unchanged.
    """
    if params is None:
        raise ValueError(f"{name}: update needs the parameters: call update(updates, state, params)")
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_leaf)
    ps = [opened(p) for p in align(treedef, params, name, "the parameters", updates, "the gradients")]
    us = [opened(u) for u in leaves]
    check_shapes(name, "gradient", updates, us, ps)
    held: list = [None] * len(leaves)
    if slots is not None:
        held = align(treedef, slots, name, "the state's trees", updates, "the gradients")
    places = _paths(updates)
    new, kept = list(leaves), [opened(slot) for slot in held]
    for i, (p, u) in enumerate(zip(ps, us, strict=True)):
        if is_hole(u) or low_dtype(name, p, places[i]) is None:
            continue
        if jnp.iscomplexobj(u):
            raise ValueError(f"{name}: the update at {places[i]} is complex, its parameter is not")
        if slots is not None and kept[i] is None:
            raise ValueError(
                f"{name}: the state holds nothing for {places[i]}, which was of another dtype when init saw it"
            )
        with on_leaf(carried_split(leaves[i]), jnp.ndim(p)):
            u, kept[i] = step(places[i], jnp.asarray(p), jnp.asarray(u).astype(jnp.float32), kept[i])
        new[i] = closed(leaves[i], u)
    return treedef.unflatten(new), treedef.unflatten(map(closed, held, kept))


def on_arrays(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step for `update_low` from one that takes no path."""
    return lambda path, *arrays: step(*arrays)


def masters(f: Callable[..., Any], params: Params, slots: Any) -> Params:
    """The parameters with `f(p, slot)` in place of each one that has a slot."""
    leaves, treedef = jax.tree.flatten(slots, is_leaf=_is_slot)
    try:
        ps = treedef.flatten_up_to(params)
        fits = all(_shape(p) == _shape(slot) for p, slot in zip(ps, leaves, strict=True) if _holds(slot))
    except (ValueError, TypeError):
        fits = False
    if not fits:
        raise ValueError("master_params: the state is that of other parameters than these, as inside of `flatten`")
    return treedef.unflatten([_kept(f, p, slot) for p, slot in zip(ps, leaves, strict=True)])


def _kept(f: Callable, p: Any, slot: Any) -> Any:
    if not _holds(slot):
        return p
    return closed(p, f(jnp.asarray(opened(p)), opened(slot)))


def _shape(x: Any) -> Any:
    return getattr(opened(x), "shape", None)


def _is_slot(x: Any) -> bool:
    """Whether this is the slot of one parameter: an array in a box, or nothing."""
    return is_box(x) or not _holds(x) and not isinstance(x, dict | list)


def _holds(slot: Any) -> bool:
    return bool(jax.tree.leaves(slot))


def _paths(tree: Any) -> list[str]:
    """The paths as text, from which random bits are drawn: spelled otherwise, they would give other bits."""
    found = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
    return [jax.tree_util.keystr(path, simple=True, separator="/") or "the root" for path, _ in found]
