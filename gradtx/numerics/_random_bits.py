# SPDX-License-Identifier: Apache-2.0
"""Random bits for rounding: a number of its own for each place of an array, by a few products.

`jax.random` takes longer than the rounding itself. These numbers decide between two
neighbors and nothing else: they are no substitute where many numbers of one key are drawn for statistics.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def random_bits(key: jax.Array, like: jax.Array) -> jax.Array:
    """uint32 numbers in the shape of an array, that depend on a key of `jax.random` and the place, nothing else.

    Places are those in the whole array, however it is sharded; beyond 2^32 elements the numbers repeat.
    """
    words = jax.random.key_data(key).reshape(-1)
    sharding, shape = _sharding(like), like.shape
    place = jnp.zeros([], jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        place = place + jax.lax.broadcasted_iota(jnp.uint32, shape, axis, out_sharding=sharding) * stride
    return _mixed(_mixed(place ^ words[0]) + words[1])


def _mixed(x: jax.Array) -> jax.Array:
    """A permutation of the 32-bit numbers in which each bit depends on all (C. Wellons' lowbias32)."""
    x = (x ^ x >> 16) * np.uint32(0x7FEB352D)
    x = (x ^ x >> 15) * np.uint32(0x846CA68B)
    return x ^ x >> 16


def _sharding(x: jax.Array) -> Any:
    """The sharding that must be said, where shardings are part of types."""
    sharding = jax.typeof(x).sharding
    is_explicit = jax.sharding.AxisType.Explicit in getattr(sharding.mesh, "axis_types", ())
    return sharding if is_explicit else None
