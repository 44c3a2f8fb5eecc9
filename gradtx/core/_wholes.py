# SPDX-License-Identifier: Apache-2.0
"""What cannot be done by sums between devices, such as a singular value decomposition: it runs on whole arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from gradtx.core._over_devices import WHOLE, gathered, own_part
from gradtx.core._roles import carried_split, closed, is_box, is_entry_box, names_of, opened
from gradtx.core._trees import align
from gradtx.core._types import OptState, Params, Updates


def on_wholes(init: Callable[..., Any], update: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`init` and `update`, run on whole arrays: split ones are gathered before, and updates cut into parts after it.

    What they remember of such arrays is of the whole, on every device.
    """

    def whole(tree: Any) -> Any:
        leaves, treedef = jax.tree.flatten(tree, is_leaf=is_entry_box)
        return treedef.unflatten(map(_whole, leaves)) if any(map(names_of, leaves)) else tree

    def init_whole(params: Params) -> OptState:
        return init(whole(params))

    def update_whole(
        updates: Updates, state: OptState, params: Params = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_entry_box)
        if not any(map(names_of, leaves)):
            return update(updates, state, params, **extra)
        like = jax.tree.structure(updates)
        given = {n: whole(x) if jax.tree.structure(x) == like else x for n, x in extra.items()}
        new, state = update(whole(updates), state, None if params is None else whole(params), **given)
        rows = align(treedef, new, "over_axes", "the updates", updates, "the gradients")
        return treedef.unflatten(map(_part, rows, leaves)), state

    return init_whole, update_whole


def _whole(x: Any) -> Any:
    if not names_of(x):
        return x
    return dataclasses.replace(x, value=gathered(opened(x), carried_split(x)), split=WHOLE)


def _part(u: Any, like: Any) -> Any:
    return closed(like, own_part(opened(u), carried_split(like))) if is_box(like) and u is not None else u
