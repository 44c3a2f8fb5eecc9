# SPDX-License-Identifier: Apache-2.0
"""Arrays cut into equal blocks: `counts` is the number of blocks along each axis."""

import math

import jax
import jax.numpy as jnp


def block_mean(x: jax.Array, counts: tuple[int, ...]) -> jax.Array:
    """The mean of each block, an array of shape `counts`; 0 for blocks without elements."""
    sizes = _sizes(x.shape, counts)
    pairs = [n for pair in zip(counts, sizes, strict=True) for n in pair]
    return jnp.sum(x.reshape(pairs), axis=tuple(range(1, 2 * x.ndim, 2))) / max(math.prod(sizes), 1)


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
