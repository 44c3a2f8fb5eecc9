# SPDX-License-Identifier: Apache-2.0
"""The dynamic map of few-bit numbers in [0, 1]: decades of evenly spaced values, relatively finer towards 1.

Of D decades, decade i = 0 ... D - 1 from 10^(i-D) to 10^(i-D+1) is cut into L = f 2^i equal parts, whose centers are
values of the map; 1 is one more value. The rank of a value is its position in increasing order, counted from f: L, ...,
2 L - 1 in decade i, and f 2^D for 1. Both conversions are arithmetic, without a table or a search.
"""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np


def rank_of(x: jax.Array, decades: int, first: int) -> jax.Array:
    """The rank of x in [0, 1], a float32: whole for values of the map, and linear in x between two of them.

    If `first`, f, is 1, then 0 has rank 0; otherwise numbers below the smallest value have a lower rank than it.
    """
    top = first * 2.0**decades
    # The rank is piecewise linear in x, with slopes that fall towards 1: it is the minimum of all lines. Only the last
    # piece, from the last center to 1, is half as long and steeper: there it is the maximum.
    lines = [x * np.float32(10.0**decades / 5.5)] if first == 1 else []
    for i in range(decades):
        parts, steep = first * 2.0**i, first * 2.0**i * 10.0 ** (decades - i)
        lines.append(x * np.float32(steep / 9) + np.float32(8 * parts / 9 - 0.5))
        if i < decades - 1:
            lines.append(x * np.float32(steep / 27) + np.float32(44 * parts / 27 - 5 / 6))
    return jnp.maximum(reduce(jnp.minimum, lines), x * np.float32(top / 0.9) + np.float32(top - top / 0.9))


def value_of_rank(rank: jax.Array, decades: int, first: int) -> jax.Array:
    """The value with this rank, a whole number in float32; 0 for ranks below `first`."""
    # rank / first = 2^i (1 + fraction), and the value is (1 + 9 fraction + 4.5 / L) 10^(i-D).
    bits = jax.lax.bitcast_convert_type(rank * np.float32(1 / first), jnp.int32)
    i = (bits >> 23) - 127
    one_and_fraction = jax.lax.bitcast_convert_type(bits & 0x7FFFFF | 0x3F800000, jnp.float32)
    half_part = np.float32(4.5 / first) * jax.lax.bitcast_convert_type((127 - i) << 23, jnp.float32)
    power = np.float32(10.0**-decades)
    for bit in range(decades.bit_length()):
        power = power * jnp.where(i >> bit & 1, np.float32(10.0**2**bit), np.float32(1))
    value = power * (9 * one_and_fraction - 8 + half_part)
    return jnp.where(rank < first, 0, jnp.minimum(value, 1))
