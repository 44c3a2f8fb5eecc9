# SPDX-License-Identifier: Apache-2.0
"""Random bits for rounding: a hash of each element's position in its array, which takes a few products.

`jax.random` would take longer than the rounding itself. These numbers are good enough to choose between two neighbors;
they are no substitute for `jax.random` in statistics.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import _over_devices as reductions
from gradtx.core._placement import explicit_sharding


def random_bits(key: jax.Array, like: jax.Array) -> jax.Array:
    """uint32 numbers in the shape of `like`, which depend only on a key of `jax.random` and the element's position.

    Positions are those in the whole array, however it is sharded; beyond 2^32 elements the numbers repeat.
    """
    words = jax.random.key_data(key).reshape(-1)
    sharding, shape, whole = explicit_sharding(like), like.shape, reductions.whole_shape(like)
    place = jnp.zeros([], jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(math.prod(whole[axis + 1 :]) % 2**32)
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis, out_sharding=sharding)
        if whole[axis] != shape[axis]:
            along = along + reductions.first_place(like, axis).astype(jnp.uint32)
        place = place + along * stride
    return _mixed(_mixed(place ^ words[0]) + words[1])


def _mixed(x: jax.Array) -> jax.Array:
    """A permutation of the 32-bit numbers in which each bit depends on all (C. Wellons' lowbias32)."""
    x = (x ^ x >> 16) * np.uint32(0x7FEB352D)
    x = (x ^ x >> 15) * np.uint32(0x846CA68B)
    return x ^ x >> 16
