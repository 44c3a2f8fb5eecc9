# SPDX-License-Identifier: Apache-2.0
"""Running a rule over a stack: on each parameter in it separately, as if it were a leaf of its own."""

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
    """An array with one part for each parameter of a stack, and the axes of the array that are the stack's."""

    value: Any
    axes: Axes = dataclasses.field(metadata={"static": True})


def is_stacked(x: Any) -> bool:
    return isinstance(x, Stacked)


def cut(x: Any, stack: Axes) -> Any:
    return Stacked(x, stack) if stack and x is not None else x


def stack_axes(role: Role | None, ndim: int) -> Axes:
    return () if role is None or not role.stack else tuple(sorted(role.fitted(ndim).stack))


def slots_of(slots: Any, stack: Axes, shape: tuple[int, ...]) -> Any:
    """The slots of a stack of this shape as `over_stack` returned them, marked as `Stacked` for the next call of it."""

    def slot(x: jax.Array) -> Stacked:
        before = x.ndim - len(shape)
        in_place = before >= 0 and x.shape[before:] == shape
        return Stacked(x, tuple(before + axis for axis in stack) if in_place else tuple(range(len(stack))))

    return jax.tree.map(slot, slots) if stack else slots


def over_stack(f: Callable[..., Any], stack: Axes, shape: tuple[int, ...], *arguments: Any) -> Any:
    """`f(*arguments)` for each parameter of a stack of this shape; without a stack, one call of `f`.

    `Stacked` arguments are split between the parameters, all others are the same for each. A result with the shape of
    the parameter, or a row of such arrays, gets the stack's axes in the same place as the parameter; any other result
    gets them in front. So a slot with the parameter's shape has the same layout with and without a role.
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
        if before >= 0 and x.shape[before:] == shape:  # `slots_of`, which looks at the shape, would be misled
            raise ValueError(f"a slot of shape {x.shape[depth:]} for each parameter of shape {one} in a stack {shape}")
        return x

    return jax.tree.map(placed, found)
