# SPDX-License-Identifier: Apache-2.0
"""Rounding of float32 arrays to numbers that bfloat16 or float16 can represent; results stay in float32.

Written with integers and powers of two, never as a cast there and back, which compilers may remove. Finite numbers
beyond the largest of the dtype become the largest; infinities and NaN stay.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

LOW = (jnp.bfloat16, jnp.float16)
BELOW = 16
"""The number of low bits of a float32 that a bfloat16 lacks."""
LARGEST = 0x7F7F0000
"""The largest finite bfloat16, as numbered by `order`."""


def is_low(dtype: Any) -> bool:
    """Whether this is a dtype that the functions here round to."""
    return jnp.dtype(dtype) in map(jnp.dtype, LOW)


def round_to_nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """The nearest number of the dtype, ties to even, as a cast rounds."""
    if dtype == jnp.bfloat16:
        return _cut(x, lambda n: (1 << BELOW - 1) - 1 + (n >> BELOW & 1))
    return _scaled(x, dtype, lambda n: jax.lax.round(n, jax.lax.RoundingMethod.TO_NEAREST_EVEN))


def round_half_up(x: jax.Array) -> jax.Array:
    """The nearest bfloat16, ties upwards: x is then at most 2^15 - 1 float32 numbers above it."""
    return _cut(x, lambda n: jnp.full_like(n, 1 << BELOW - 1))


def round_at_random(x: jax.Array, dtype: Any, bits: jax.Array) -> jax.Array:
    """Stochastic rounding: one of the two neighbors of x in the dtype, with mean x. `bits` are random uint32."""
    if dtype == jnp.bfloat16:
        return _cut(x, lambda n: jax.lax.bitcast_convert_type(bits >> 32 - BELOW, jnp.int32))
    chance = (bits >> 8).astype(jnp.float32) * 2.0**-24

    def up_or_down(n: jax.Array) -> jax.Array:
        below = jnp.floor(n)
        return below + (chance < n - below).astype(n.dtype)

    return _scaled(x, dtype, up_or_down)


def ulp(x: jax.Array, dtype: Any) -> jax.Array:
    """The distance from |x| to the next larger number of the dtype, at least the smallest normal float32."""
    return _power_of_two(_ulp_exponent(x, dtype))


def order(x: jax.Array) -> jax.Array:
    """The position of a float32 in the increasing order of all float32 numbers: 0 for 0, negative below."""
    n = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jnp.where(n < 0, jnp.iinfo(jnp.int32).min - n, n)


def from_order(n: jax.Array) -> jax.Array:
    """The float32 at a position of `order`."""
    return jax.lax.bitcast_convert_type(jnp.where(n < 0, jnp.iinfo(jnp.int32).min - n, n), jnp.float32)


def difference_to(q: jax.Array, p: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(u, new): the update u = q - p in float32, for p and q of the dtype, and new = p + u, rounded to the dtype.

    new is q unless |q| < 2^-16 |p| (bfloat16; 2^-13 in float16): q - p then needs more than the 24 bits of float32.
    The error is at most half a float32 ulp of p, as in every update of a float32 parameter.
    """
    u = q - p
    return u, round_to_nearest(p + u, dtype)


def _cut(x: jax.Array, addend: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Adds addend(n) to n = order(x), and rounds down to a bfloat16."""
    n = order(x)
    cut = (n + addend(n)) >> BELOW << BELOW
    return jnp.where(jnp.isfinite(x), from_order(jnp.clip(cut, -LARGEST, LARGEST)), x)


def _scaled(x: jax.Array, dtype: Any, to_whole: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """x with its magnitude, in ulps of the dtype, made a whole number by `to_whole`."""
    info, exponent = jnp.finfo(dtype), _ulp_exponent(x, dtype)
    size = to_whole(jnp.abs(x) * _power_of_two(-exponent)) * _power_of_two(exponent)
    return jnp.where(jnp.isfinite(x), jnp.copysign(jnp.minimum(size, float(info.max)), x), x)


def _ulp_exponent(x: jax.Array, dtype: Any) -> jax.Array:
    info = jnp.finfo(dtype)
    exponent = (jax.lax.bitcast_convert_type(jnp.abs(x), jnp.int32) >> 23) - 127
    return jnp.maximum(jnp.maximum(exponent, int(info.minexp)) - int(info.nmant), -126)


def _power_of_two(exponent: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)
