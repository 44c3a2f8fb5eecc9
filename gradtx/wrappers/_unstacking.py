# SPDX-License-Identifier: Apache-2.0
"""Unstacking: splits stacks of parameters into leaves, for transformations that treat each leaf as one parameter."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._factory import transformation
from gradtx.core._roles import Boxed, is_box, is_full_box
from gradtx.core._stacks import stack_axes
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._types import OptState, Params, Updates


@transformation
def unstacked(inner: Any) -> GradientTransformationExtraArgs:
    """Runs `inner` on each parameter of a stack as on a leaf of its own, where roles tell which axes are stacked.

    For transformations of other libraries inside `with_roles`: the rules of gradtx handle stacks themselves, without
    splitting them. In the state, each stack is a tuple.
    """
    tx = as_inner("unstacked: inner", inner)
    init, update = on_parts(tx.init, tx.update)
    return GradientTransformationExtraArgs(init, update, parts=lambda state: {"": (inner, state)})


def on_parts(init: Callable[..., Any], update: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`init` and `update`, run on trees in which each stack is a tuple of parameters."""

    def parts_of(x: Any) -> Any:
        if not is_full_box(x):
            return x
        ndim = jnp.ndim(x.value)
        stack = stack_axes(x.role, ndim)
        role = None if x.role is None else x.role.logical(ndim)
        if not stack:
            return dataclasses.replace(x, role=role)
        rows = jnp.moveaxis(x.value, stack, range(len(stack)))
        rows = rows.reshape(-1, *rows.shape[len(stack) :])
        groups = x.group if isinstance(x.group, tuple) else (x.group,) * len(rows)
        split = None if x.split is None else x.split.without(stack, ndim)
        return tuple(Boxed(row, role, group, split) for row, group in zip(rows, groups, strict=True))

    def apart(tree: Any) -> Any:
        return jax.tree.map(parts_of, tree, is_leaf=is_box)

    def together(box: Any, parts: Any) -> Any:
        if not is_full_box(box) or not jax.tree.leaves(parts):  # a frozen parameter has no update
            return parts if not is_full_box(box) else None
        stack = stack_axes(box.role, jnp.ndim(box.value))
        if not stack:
            return box.holding(parts.value)
        known = next(part.value for part in parts if jax.tree.leaves(part))
        rows = jnp.stack([part.value if jax.tree.leaves(part) else jnp.zeros_like(known) for part in parts])
        sizes = [box.value.shape[axis] for axis in stack]
        return box.holding(jnp.moveaxis(rows.reshape(*sizes, *rows.shape[1:]), range(len(stack)), stack))

    def init_parts(params: Params) -> OptState:
        return init(apart(params))

    def update_parts(
        updates: Updates, state: OptState, params: Params = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        known = updates if params is None else params
        structure = jax.tree.structure(apart(known))

        def argument(x: Any) -> Any:
            if not callable(x):
                return apart(x)
            return lambda *args, **kwargs: apart(x(*map(whole, args), **{n: whole(v) for n, v in kwargs.items()}))

        def whole(x: Any) -> Any:
            fits = jax.tree.structure(x) == structure
            return jax.tree.map(together, known, x, is_leaf=is_box) if fits else x

        given = {n: argument(x) for n, x in extra.items()}
        new, state = update(apart(updates), state, None if params is None else apart(params), **given)
        return jax.tree.map(together, updates, new, is_leaf=is_box), state

    return init_parts, update_parts
