# SPDX-License-Identifier: Apache-2.0
"""Whole tensors on each device: of a stack of which every device has parts, or all, each gets some to work on."""

import contextvars
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._over_devices import Names, Split, as_varying, devices, gathered, own_part

OVER: contextvars.ContextVar[Names | None] = contextvars.ContextVar("over", default=None)
"""The mesh axes over which to spread the matrices of a bucket, () for none; None while nobody says."""

Each = tuple[Names, ...]
"""The mesh axes of each axis of a tensor."""


class Spread(NamedTuple):
    """How devices share out a stack of tensors, inside a `shard_map`.

    Attributes:
      count: the number of tensors.
      swapped: the mesh axes along which devices give each other parts, until each has whole tensors.
      sliced: those along which devices have the same, of which each takes its own.
    """

    count: int
    swapped: Names
    sliced: Names

    @property
    def names(self) -> Names:
        return (*self.swapped, *self.sliced)

    def rows(self, x: jax.Array, each: Each) -> jax.Array:
        """The whole tensors that this device works on; x is a stack of tensors that are split over `each`."""
        swapped = self._swapped(each)
        x = padded(gathered(x, self._split(each, swapped)), devices(self.names))
        if swapped is None:
            return own_part(x, _of_rows(self.names, x.ndim))
        if self.swapped:
            x = jax.lax.all_to_all(as_varying(x, self.swapped), self.swapped, 0, 0, tiled=True)
            sizes = list(map(jax.lax.axis_size, self.swapped))
            whole = [n * devices(names) for n, names in zip(x.shape[1:], swapped, strict=True)]
            x = x.reshape(*sizes, -1, *x.shape[1:]).transpose(self._order(swapped)).reshape(-1, *whole)
        return own_part(x, _of_rows(self.sliced, x.ndim))

    def back(self, x: jax.Array, each: Each) -> jax.Array:
        """`rows` undone."""
        swapped = self._swapped(each)
        x = gathered(x, _of_rows(self.names if swapped is None else self.sliced, x.ndim))
        if swapped and self.swapped:
            sizes = [[*map(jax.lax.axis_size, names)] for names in swapped]
            parts = [n // devices(names) for n, names in zip(x.shape[1:], swapped, strict=True)]
            x = x.reshape(-1, *[n for size, part in zip(sizes, parts, strict=True) for n in (*size, part)])
            order = self._order(swapped)
            x = x.transpose(sorted(range(x.ndim), key=order.__getitem__)).reshape(-1, *parts)
            x = jax.lax.all_to_all(as_varying(x, self.swapped), self.swapped, 0, 0, tiled=True)
        return own_part(x[: self.count], self._split(each, swapped))

    def _swapped(self, each: Each) -> Each | None:
        """The names in `each` along which parts are swapped; None if the tensors are gathered, then shared out."""
        found = tuple(names if set(names) <= set(self.swapped) else () for names in each)
        return found if {n for names in found for n in names} == set(self.swapped) else None

    def _split(self, each: Each, swapped: Each | None) -> Split:
        """The split of the stack over the names along which parts are gathered."""
        left = [names if swapped is None or not swapped[i] else () for i, names in enumerate(each)]
        return Split(tuple(n for names in left for n in names), ((), *left))

    def _order(self, swapped: Each) -> list[int]:
        """Where the axes (row, mesh axes of the first axis, first axis, ...) are in (mesh axes, row, axes)."""
        row = len(self.swapped)
        axes = [[*map(self.swapped.index, names), row + 1 + i] for i, names in enumerate(swapped)]
        return [row, *[at for some in axes for at in some]]


def spread_of(count: int, each: Each, lead: Names, over: Names | None, size: Callable[[str], int]) -> Spread | None:
    """How tensors that are split over `each` are shared out; None if they are gathered, or are whole already.

    Args:
      count: the number of tensors of which this device has parts.
      lead: the mesh axes that split the stack itself.
      over: the mesh axes over which to spread; None for all that split the tensors.
      size: the number of devices along a mesh axis.
    """
    inside = tuple(n for names in each for n in names)
    if over == ():
        return None
    if over is None:
        swapped, sliced = inside, ()
    else:
        swapped = tuple(n for names in each if set(names) <= set(over) for n in names)
        sliced = tuple(n for n in over if n not in swapped and n not in lead)
    found = Spread(count, swapped, sliced)
    return found if found.names + lead and count >= math.prod(map(size, found.names)) else None


def padded(x: jax.Array, parts: int) -> jax.Array:
    """The stack with its last entry repeated until it can be cut into so many parts.

    So whatever a rule takes is there: an entry of zeros might be no state of it.
    """
    missing = -len(x) % parts
    return jnp.concatenate([x, jnp.broadcast_to(x[-1:], (missing, *x.shape[1:]))]) if missing else x


def _of_rows(names: Names, ndim: int) -> Split:
    return Split(names, (names, *((),) * (ndim - 1)))
