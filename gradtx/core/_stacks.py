# SPDX-License-Identifier: Apache-2.0
"""Running a rule over a stack: on each parameter in it by itself, as if it were a leaf of its own."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._roles import Role

Axes = tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stacked:
    """An array of which each parameter of a stack has its own part, and its axes that are the stack's."""

    value: Any
    axes: Axes = dataclasses.field(metadata={"static": True})


def is_stacked(x: Any) -> bool:
    return isinstance(x, Stacked)


def cut(x: Any, stack: Axes) -> Any:
    return Stacked(x, stack) if stack and x is not None else x


def stack_axes(role: Role | None, ndim: int) -> Axes:
    return () if role is None or not role.stack else tuple(sorted(role.fitted(ndim).stack))


def slots_of(slots: Any, stack: Axes, shape: tuple[int, ...]) -> Any:
    """The slots of a stack of this shape, as `over_stack` returned them, ready for it again."""

    def slot(x: jax.Array) -> Stacked:
        before = x.ndim - len(shape)
        in_place = before >= 0 and x.shape[before:] == shape
        return Stacked(x, tuple(before + axis for axis in stack) if in_place else tuple(range(len(stack))))

    return jax.tree.map(slot, slots) if stack else slots


def over_stack(f: Callable, stack: Axes, shape: tuple[int, ...], *arguments: Any) -> Any:
    """`f` on each parameter of a stack of this shape; without a stack, `f` itself.

    What is `Stacked` among the arguments is cut, all else is the same for each. Where a result is an array like the
    parameter, or a row of such arrays, it gets the stack's axes where the parameter has them; any other gets them in
    front. So a slot has the same layout as without the role whenever its shape would be the same.
    """
    if not stack:
        return f(*arguments)
    depth, one = len(stack), tuple(n for axis, n in enumerate(shape) if axis not in stack)
    leaves, treedef = jax.tree.flatten(arguments, is_leaf=is_stacked)

    def of_one(*parts: Any) -> Any:
        rest = iter(parts)
        return f(*jax.tree.unflatten(treedef, [next(rest) if is_stacked(x) else x for x in leaves]))

    for _ in range(depth):
        of_one = jax.vmap(of_one)
    in_front = range(depth)
    found = of_one(*[jnp.moveaxis(x.value, x.axes, in_front) for x in leaves if is_stacked(x)])

    def placed(x: jax.Array) -> jax.Array:
        before = x.ndim - depth - len(one)
        if before >= 0 and x.shape[depth + before :] == one:
            return jnp.moveaxis(x, in_front, [before + axis for axis in stack])
        if before >= 0 and x.shape[before:] == shape:  # the shape is how `slots_of` knows where the stack is
            raise ValueError(f"a slot of shape {x.shape[depth:]} for each parameter of shape {one} in a stack {shape}")
        return x

    return jax.tree.map(placed, found)
