# SPDX-License-Identifier: Apache-2.0
"""Tensors in blocks: every axis is cut, and blocks of equal shape are stacked."""

import itertools
import math
from typing import NamedTuple

import jax


class TensorBlocks(NamedTuple):
    """Blocks of one shape: where they begin in the tensor, their shape, and their number along each axis."""

    starts: tuple[int, ...]
    shape: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def number(self) -> int:
        return math.prod(self.counts)

    def taken_from(self, x: jax.Array) -> jax.Array:
        """These blocks of x, one behind the other along a first axis."""
        k = len(self.shape)
        pairs = [n for pair in zip(self.counts, self.shape, strict=True) for n in pair]
        apart = x[self._place()].reshape(pairs).transpose(*range(0, 2 * k, 2), *range(1, 2 * k, 2))
        return apart.reshape(-1, *self.shape)

    def put_into(self, x: jax.Array, blocks: jax.Array) -> jax.Array:
        """x with these blocks in their places."""
        k = len(self.shape)
        order = [axis for pair in zip(range(k), range(k, 2 * k), strict=True) for axis in pair]
        sides = [n * m for n, m in zip(self.counts, self.shape, strict=True)]
        together = blocks.reshape(*self.counts, *self.shape).transpose(order).reshape(sides)
        return x.at[self._place()].set(together)

    def _place(self) -> tuple[slice, ...]:
        spans = zip(self.starts, self.counts, self.shape, strict=True)
        return tuple(slice(start, start + count * n) for start, count, n in spans)


def tensor_blocks(shape: tuple[int, ...], size: int) -> list[TensorBlocks]:
    """All blocks of a tensor whose axes are cut into pieces of this size; the last piece of an axis may be shorter."""

    def pieces(n: int) -> list[tuple[int, int, int]]:
        number, rest = divmod(n, size)
        whole = [(0, size, number)] if number else []
        return whole + ([(number * size, rest, 1)] if rest else [])

    return [TensorBlocks(*zip(*chosen, strict=True)) for chosen in itertools.product(*map(pieces, shape))]


def merged_shape(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The shape without axes of length 1, neighbors merged from the last on while their product is at most `size`."""
    found: list[int] = []
    for n in reversed([n for n in shape if n != 1]):
        if found and found[0] * n <= size:
            found[0] *= n
        else:
            found.insert(0, n)
    return tuple(found) or (1,)
