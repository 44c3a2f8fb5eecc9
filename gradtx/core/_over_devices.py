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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, AxesOrOne
from gradtx.core._operations import divide, sum_of
from gradtx.core._ranges import Bound

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
        return split_by(axes)

    def of_each(self, ndim: int) -> tuple[Names, ...]:
        """The mesh axes of each axis of the array of this rank."""
        if not self.names:
            return ((),) * ndim
        if self.axes is not None or ndim == 1:
            return (self.names,) if self.axes is None else self.axes
        raise ValueError(
            f"the rule reduces over some axes of an array of rank {ndim}, but of the split only the names "
            f"{', '.join(self.names)} are known: give over_axes the PartitionSpecs of the parameters as axes"
        )


def split_by(axes: tuple[Names, ...]) -> Split:
    """The split of an array of which each axis is split over these mesh axes.

    The names are in one order, as arrays that are split over the same mesh axes are summed together.
    """
    return Split(tuple(sorted(name for names in axes for name in names)), axes)


WHOLE = Split((), ())
"""Of an array that nobody split; `axes` are not looked at where there are no names."""


class Leaf(NamedTuple):
    """The leaf whose rule is being traced: its split, its rank, and the parameter, whose type may tell of a split."""

    split: Split | None
    ndim: int
    p: Any = None

    def over(self, x: Any, axis: Axis) -> Names:
        """The mesh axes over which to reduce an array like the leaf, reduced over these axes of its own."""
        if self.split is None:
            if isinstance(self.p, Tracer) and (names := varying(self.p)):
                raise ValueError(unsaid_sentence(names))
            return ()
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


LEAF: contextvars.ContextVar[Leaf | None] = contextvars.ContextVar("leaf", default=None)
"""Set while a rule runs on a leaf."""


@contextlib.contextmanager
def on_leaf(split: Split | None, ndim: int, p: Any = None) -> Iterator[None]:
    """Runs what is inside as on a leaf with this split."""
    token = LEAF.set(Leaf(split, ndim, p))
    try:
        yield
    finally:
        LEAF.reset(token)


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
    leaf = LEAF.get()
    return () if leaf is None else leaf.over(x, axis)


@checked
def total(x: ArrayLike, axis: AxesOrOne | None = None, keepdims: bool = False) -> jax.Array:
    """The sum of a parameter's array, for rules of `per_parameter`: of all of it inside `gradtx.sharding.over_axes`,
    where a device has a part, and `jnp.sum` elsewhere.

    Args:
      x: an array with the axes of the parameter, such as `g * g`.
      axis: the axis or axes to sum over; None for all.
      keepdims: whether these stay, with length 1.

    Raises:
      ValueError: in a rule, for another rank than that of the parameter; where types show that the parameter is split
        and nobody said so; and where `axis` is not all of them and `over_axes` was given names only.
    """
    names, found = _over(x, axis), sum_of(x, axis, keepdims)
    return summed(found, names) if names else found


@checked
def mean(x: ArrayLike, axis: AxesOrOne | None = None, keepdims: bool = False) -> jax.Array:
    """The mean of a parameter's array; see `total`.

    Args:
      x, axis, keepdims: as in `total`.
    """
    names = _over(x, axis)
    if not names and not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.mean(x, axis=axis, keepdims=keepdims)
    return divide(total(x, axis, keepdims), max(size(x, axis), 1.0) if names else size(x, axis))


@checked
def largest(
    x: ArrayLike, axis: AxesOrOne | None = None, keepdims: bool = False, initial: Bound | None = None
) -> jax.Array:
    """The largest element of a parameter's array; see `total`.

    Args:
      x, axis, keepdims: as in `total`.
      initial: what the result is at least; needed if there may be no elements.
    """
    names, found = _over(x, axis), jnp.max(x, axis=axis, keepdims=keepdims, initial=initial)
    return jax.lax.pmax(found, names) if names else found


@checked
def size(x: ArrayLike, axis: AxesOrOne | None = None) -> float:
    """The number of elements of a parameter's array; a float, as there may be more than an int32 can tell. See `total`.

    Args:
      x, axis: as in `total`.
    """
    names, shape = _over(x, axis), jnp.shape(x)
    return float(math.prod(shape[a] for a in _chosen(axis, len(shape)))) * devices(names)


def whole_shape(x: Any) -> tuple[int, ...]:
    """The shape of the whole of an array that has the axes of the parameter."""
    return whole_shape_of(jnp.shape(x), here())


def across(x: Any, axis: Axis = None) -> Callable[[Any], Any] | None:
    """The function that sums what each device has found along these axes of its part of x; None if that is all."""
    names = _over(x, axis)
    return (lambda found: summed(found, names)) if names else None


def anywhere(x: jax.Array) -> jax.Array:
    """`jnp.any` of the whole."""
    return any_over({_over(x, None): jnp.any(x)})


def once(tree: Any) -> Any:
    """What a `measure` has of the whole parameter, not of a part: on one device as it is, on the others 0.

    The lift sums what `measure` returns over the devices between which the parameter is split.
    """
    leaf = LEAF.get()
    names = () if leaf is None or leaf.split is None else leaf.split.names
    return _of_first(tree, names)


def _of_first(tree: Any, names: Names) -> Any:
    """The tree on the first of the devices along these mesh axes, 0 on the others."""
    if not names:
        return tree
    first = jax.lax.axis_index(names) == 0
    return jax.tree.map(lambda x: jnp.where(first, x, jnp.zeros_like(x)), tree)


def summed(tree: Any, names: Names) -> Any:
    """The sum over the devices along these mesh axes, of each array of a tree."""
    return jax.lax.psum(jax.tree.map(lambda x: as_varying(x, names), tree), names) if names else tree


def as_varying(x: Any, names: Names) -> Any:
    """x as what differs between devices by its type, even if it does not, such as a number that is the same in all."""
    if not varying(jax.lax.axis_index(names[0])):  # types do not tell
        return x
    missing = tuple(name for name in names if name not in varying(x))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def sum_over(parts: dict[Names, Any]) -> Any:
    """The sum of trees of one structure, of each of which this device has its part along these mesh axes.

    It takes one sum between devices, along all of the axes: of what several have alike, the first one gives.
    """
    names = tuple(sorted({name for some in parts for name in some}))
    own = [_of_first(tree, tuple(n for n in names if n not in some)) for some, tree in parts.items() if some]
    whole = [summed(_added(own), names)] if own else []
    return _added([*whole, *(tree for some, tree in parts.items() if not some)])


def _added(trees: list[Any]) -> Any:
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *xs: functools.reduce(jnp.add, xs), *trees)


def reduced_over(parts: dict[Names, jax.Array], reduce: Callable[..., Any], across: Callable[..., Any]) -> jax.Array:
    """As `sum_over` for another reduction of arrays, and the one of it between devices."""
    found = [across(x, names) if names else x for names, x in parts.items()]
    return found[0] if len(found) == 1 else reduce(jnp.stack(found), axis=0)


def any_over(parts: dict[Names, jax.Array]) -> jax.Array:
    """Whether any of these is true on any of the devices along its mesh axes."""
    if not any(parts):
        return parts[()]
    return sum_over({names: found.astype(jnp.int32) for names, found in parts.items()}) > 0


def gathered(x: jax.Array, split: Split | None) -> jax.Array:
    """The whole of which every device has its part, on every device."""
    if split is None or not split.names:
        return x
    for axis, names in enumerate(split.of_each(x.ndim)):
        if names:
            x = jax.lax.all_gather(as_varying(x, names), names, axis=axis, tiled=True, to="invarying")
    return x


def own_part(x: jax.Array, split: Split | None) -> jax.Array:
    """The part of a whole that this device has."""
    if split is None or not split.names:
        return x
    for axis, names in enumerate(split.of_each(x.ndim)):
        if names:
            length = x.shape[axis] // devices(names)
            x = jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(names) * length, length, axis)
    return x


def whole_shape_of(shape: tuple[int, ...], split: Split | None) -> tuple[int, ...]:
    """The shape of the whole of which every device has a part of this shape."""
    if split is None or not split.names:
        return shape
    return tuple(n * devices(names) for n, names in zip(shape, split.of_each(len(shape)), strict=True))


def first_place(x: Any, axis: int) -> jax.Array:
    """The place in the whole of the first element along an axis of this device's part."""
    names = _over(x, axis)
    return jax.lax.axis_index(names) * jnp.shape(x)[axis] if names else jnp.zeros([], jnp.int32)


def drawn(draw: Callable[[tuple[int, ...]], jax.Array], shape: tuple[int, ...], split: Split | None) -> jax.Array:
    """This device's part, of this shape, of the random numbers that are drawn for the whole: as one device has them."""
    return own_part(draw(whole_shape_of(shape, split)), split)


def here() -> Split | None:
    """The split of the leaf whose rule is being traced."""
    leaf = LEAF.get()
    return None if leaf is None else leaf.split


def devices(names: Names) -> int:
    """The number of devices along these mesh axes, between which an array is split."""
    return math.prod(map(jax.lax.axis_size, names))


def is_bound(name: str) -> bool:
    """Whether this is inside a `shard_map` or `pmap` over a mesh axis of this name."""
    try:
        jax.lax.axis_size(name)
    except NameError:
        return False
    return True
