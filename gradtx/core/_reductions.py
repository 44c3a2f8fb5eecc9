# SPDX-License-Identifier: Apache-2.0
"""Sums, means and extremes of whole arrays, also where an array is split between the devices of a `shard_map`.

How a leaf is split is written on its box (see `core._roles`) by `over_axes`. The kernels say it around the call of a
rule, so that the functions here find it: a rule reads as on one device. Without a split each is the function of
`jax.numpy`, bit for bit. As the box is part of the key of the compiled kernels, no rule is run for another split than
that for which it was traced.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

Names = tuple[str, ...]
Axis = int | tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Split:
    """Between which devices an array is split. A split without names is that of an array which each device has whole.

    Attributes:
      names: the mesh axes over which it is split.
      axes: those of each axis of the array; None if that is not known, only that they are these altogether.
    """

    names: Names
    axes: tuple[Names, ...] | None

    def without(self, stack: tuple[int, ...], ndim: int) -> "Split":
        """The split of one of the arrays that are stacked along these axes of an array of this rank."""
        if not stack or not self.names:
            return self
        axes = tuple(names for axis, names in enumerate(self.of_each(ndim)) if axis not in stack)
        return Split(tuple(n for names in axes for n in names), axes)

    def of_each(self, ndim: int) -> tuple[Names, ...]:
        """The mesh axes of each axis of the array of this rank."""
        if self.axes is not None or ndim == 1:
            return (self.names,) if self.axes is None else self.axes
        if not self.names:
            return ((),) * ndim
        raise ValueError(
            f"the rule reduces over some axes of an array of rank {ndim}, but of the split only the names "
            f"{', '.join(self.names)} are known: give over_axes the PartitionSpecs of the parameters as axes"
        )


WHOLE = Split((), ())
"""Of an array that nobody split; `axes` are not looked at where there are no names."""


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """The leaf whose rule is being traced: its split and its rank; the mesh axes it varies over, if nobody said why."""

    split: Split
    ndim: int
    unsaid: Names = ()

    def over(self, x: Any, axis: Axis) -> Names:
        """The mesh axes over which to reduce an array like the leaf, reduced over these axes of its own."""
        if self.unsaid:
            raise ValueError(unsaid_sentence(self.unsaid))
        if not self.split.names:
            return ()
        if jnp.ndim(x) != self.ndim:
            raise ValueError(f"an array of shape {jnp.shape(x)} has not the axes of its parameter, of rank {self.ndim}")
        chosen = _chosen(axis, self.ndim)
        if len(chosen) == self.ndim:
            return self.split.names
        each = self.split.of_each(self.ndim)
        return tuple(name for a in chosen for name in each[a])


def unsaid_sentence(names: Names) -> str:
    return (
        f"the parameter is split over the mesh axes {', '.join(names)}, so that a sum over it would be one of each "
        f"device's part: wrap the optimizer in gradtx.sharding.over_axes"
    )


_leaf: contextvars.ContextVar[_Leaf | None] = contextvars.ContextVar("leaf", default=None)


@contextlib.contextmanager
def splitting(split: Split | None, ndim: int, like: Any = None) -> Iterator[None]:
    """Runs what is inside with the split of the leaf that it is about, of this rank.

    Args:
      like: the parameter, which tells by its type that it is split where nobody said how.
    """
    unsaid = varying(like) if split is None and like is not None else ()
    token = _leaf.set(_Leaf(split or WHOLE, ndim, unsaid))
    try:
        yield
    finally:
        _leaf.reset(token)


def varying(x: Any) -> Names:
    """The mesh axes over which an array in a `shard_map` differs by its type; none where types do not say it."""
    kind = jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)  # of jax 0.12
    return tuple(sorted(getattr(kind, "vma", ()) if manual is None else manual.varying))


def _chosen(axis: Axis, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,))))


def _over(x: Any, axis: Axis) -> Names:
    leaf = _leaf.get()
    return () if leaf is None else leaf.over(x, axis)


def total(x: jax.Array, axis: Axis = None, keepdims: bool = False) -> jax.Array:
    """`jnp.sum` of the whole of an array that has the axes of the parameter."""
    names, found = _over(x, axis), jnp.sum(x, axis=axis, keepdims=keepdims)
    return summed(found, names) if names else found


def mean(x: jax.Array, axis: Axis = None, keepdims: bool = False) -> jax.Array:
    """`jnp.mean` of the whole."""
    if not _over(x, axis):
        return jnp.mean(x, axis=axis, keepdims=keepdims)
    return total(x, axis, keepdims) / max(size(x, axis), 1.0)


def largest(x: jax.Array, axis: Axis = None, keepdims: bool = False, initial: Any = None) -> jax.Array:
    """`jnp.max` of the whole."""
    names, found = _over(x, axis), jnp.max(x, axis=axis, keepdims=keepdims, initial=initial)
    return jax.lax.pmax(found, names) if names else found


def size(x: Any, axis: Axis = None) -> float:
    """The number of elements along these axes of the whole; a float, as there may be more than an int32 can tell."""
    names, shape = _over(x, axis), jnp.shape(x)
    return float(math.prod(shape[a] for a in _chosen(axis, len(shape)))) * _devices(names)


def whole_shape(x: Any) -> tuple[int, ...]:
    """The shape of the whole of an array that has the axes of the parameter."""
    leaf, shape = _leaf.get(), jnp.shape(x)
    if leaf is None or not leaf.split.names:
        return shape
    return tuple(n * _devices(names) for n, names in zip(shape, leaf.split.of_each(leaf.ndim), strict=True))


def across(x: Any, axis: Axis = None) -> Callable[[Any], Any] | None:
    """The function that sums what each device has found along these axes of its part of x; None if that is all."""
    names = _over(x, axis)
    return (lambda found: summed(found, names)) if names else None


def once(tree: Any) -> Any:
    """What a `measure` has of the whole parameter, not of a part: on one device as it is, on the others 0.

    The lift sums what `measure` returns over the devices between which the parameter is split.
    """
    leaf = _leaf.get()
    names = () if leaf is None else leaf.split.names
    return jax.tree.map(lambda x: jnp.where(_is_first(names), x, jnp.zeros_like(x)), tree) if names else tree


def _is_first(names: Names) -> jax.Array:
    return jax.lax.axis_index(names) == 0


def summed(tree: Any, names: Names) -> Any:
    """The sum over the devices along these mesh axes, of each array of a tree."""
    return jax.lax.psum(tree, names) if names else tree


def sum_over(parts: dict[Names, Any]) -> Any:
    """The sum of trees of one structure, of each of which this device has its part along these mesh axes.

    Each set of mesh axes takes one sum between devices, whatever there is in the trees.
    """
    whole = [summed(tree, names) for names, tree in parts.items()]
    return whole[0] if len(whole) == 1 else jax.tree.map(lambda *xs: functools.reduce(jnp.add, xs), *whole)


def _devices(names: Names) -> int:
    return math.prod(map(jax.lax.axis_size, names))
