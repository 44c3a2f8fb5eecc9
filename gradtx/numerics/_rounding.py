# SPDX-License-Identifier: Apache-2.0
"""Rounding to bfloat16 and float16, on float32 arrays: what is returned is float32 and representable in the dtype.

Written with whole numbers and powers of two, never as a cast there and back: compilers may leave that out. Finite
numbers beyond the largest one of the dtype become it; what is not finite stays.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

LOW = (jnp.bfloat16, jnp.float16)
BELOW = 16
"""How many bits of a float32 are below those of a bfloat16."""
LARGEST = 0x7F7F0000
"""The largest finite bfloat16 as a float32 in `order`."""


def is_low(dtype: Any) -> bool:
    """Whether rounding to this dtype is known here and needed."""
    return jnp.dtype(dtype) in map(jnp.dtype, LOW)


def round_to_nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """The nearest number of the dtype, of two the even one, as a cast has it."""
    if dtype == jnp.bfloat16:
        return _cut(x, lambda n: (1 << BELOW - 1) - 1 + (n >> BELOW & 1))
    return _scaled(x, dtype, lambda n: jax.lax.round(n, jax.lax.RoundingMethod.TO_NEAREST_EVEN))


def round_half_up(x: jax.Array) -> jax.Array:
    """The nearest number of bfloat16, of two the larger one: x is at most 2^15 - 1 numbers of float32 above it."""
    return _cut(x, lambda n: jnp.full_like(n, 1 << BELOW - 1))


def round_at_random(x: jax.Array, dtype: Any, bits: jax.Array) -> jax.Array:
    """One of the two neighbors in the dtype, whose mean is x. `bits` are random numbers of uint32."""
    if dtype == jnp.bfloat16:
        return _cut(x, lambda n: jax.lax.bitcast_convert_type(bits >> 32 - BELOW, jnp.int32))
    chance = (bits >> 8).astype(jnp.float32) * 2.0**-24

    def up_or_down(n: jax.Array) -> jax.Array:
        below = jnp.floor(n)
        return below + (chance < n - below).astype(n.dtype)

    return _scaled(x, dtype, up_or_down)


def ulp(x: jax.Array, dtype: Any) -> jax.Array:
    """The distance to the next number of the dtype away from 0, at least the smallest normal float32."""
    return _power_of_two(_ulp_exponent(x, dtype))


def order(x: jax.Array) -> jax.Array:
    """The number of a float32 among all of them in the order of their sizes: 0 for 0, negative for what is below."""
    n = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jnp.where(n < 0, jnp.iinfo(jnp.int32).min - n, n)


def from_order(n: jax.Array) -> jax.Array:
    """The float32 of a number of `order`."""
    return jax.lax.bitcast_convert_type(jnp.where(n < 0, jnp.iinfo(jnp.int32).min - n, n), jnp.float32)


def difference_to(q: jax.Array, p: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """The update that takes p to q, both of the dtype, and where it takes it: the nearest to p + u in the dtype.

    That is q, unless |q| is less than 2^-16 |p| (bfloat16; 2^-13 in float16): q - p then needs more than the 24 bits of
    float32. What is lost is at most half an ulp of p in float32, as it is when a float32 parameter is updated.
    """
    u = q - p
    return u, round_to_nearest(p + u, dtype)


def _cut(x: jax.Array, addend: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The bfloat16 at or below x, after adding to the number of x in `order`."""
    n = order(x)
    cut = (n + addend(n)) >> BELOW << BELOW
    return jnp.where(jnp.isfinite(x), from_order(jnp.clip(cut, -LARGEST, LARGEST)), x)


def _scaled(x: jax.Array, dtype: Any, to_whole: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """x with its size in ulps made whole."""
    info, exponent = jnp.finfo(dtype), _ulp_exponent(x, dtype)
    size = to_whole(jnp.abs(x) * _power_of_two(-exponent)) * _power_of_two(exponent)
    return jnp.where(jnp.isfinite(x), jnp.copysign(jnp.minimum(size, float(info.max)), x), x)


def _ulp_exponent(x: jax.Array, dtype: Any) -> jax.Array:
    info = jnp.finfo(dtype)
    exponent = (jax.lax.bitcast_convert_type(jnp.abs(x), jnp.int32) >> 23) - 127
    return jnp.maximum(jnp.maximum(exponent, int(info.minexp)) - int(info.nmant), -126)


def _power_of_two(exponent: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)
