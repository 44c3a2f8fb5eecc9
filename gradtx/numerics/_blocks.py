# SPDX-License-Identifier: Apache-2.0
"""Arrays cut into equal blocks: `counts` is the number of blocks along each axis."""

import math

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions


def block_mean(x: jax.Array, counts: tuple[int, ...], singles: tuple[int, ...] = ()) -> jax.Array:
    """The mean of each block, an array of shape `counts`; 0 for blocks without elements.

    Args:
      singles: axes of which each element is a block, also if this device has only one.
    """
    sizes = _sizes(x.shape, counts)
    pairs = [n for pair in zip(counts, sizes, strict=True) for n in pair]
    sums = jnp.sum(x.reshape(pairs), axis=tuple(range(1, 2 * x.ndim, 2)))
    # A single block along an axis is that of the whole. Of several, each device has whole ones.
    alone = tuple(axis for axis, n in enumerate(counts) if n == 1 and axis not in singles)
    across = reductions.across(x, alone) if alone else None
    if across is None:
        return sums / max(math.prod(sizes), 1)
    others = math.prod(n for axis, n in enumerate(sizes) if axis not in alone)
    return across(sums) / max(others * reductions.size(x, alone), 1.0)


def spread_blocks(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The array of this shape in which all elements of a block have the value of the block."""
    counts = values.shape
    sizes = _sizes(shape, counts)
    values = values.reshape([n for count in counts for n in (count, 1)])
    return jnp.broadcast_to(values, [n for pair in zip(counts, sizes, strict=True) for n in pair]).reshape(shape)


def _sizes(shape: tuple[int, ...], counts: tuple[int, ...]) -> list[int]:
    if len(shape) != len(counts):
        raise ValueError(f"the state was made for another shape: it has blocks of shape {counts}")
    return [n // max(count, 1) for n, count in zip(shape, counts, strict=True)]
