# SPDX-License-Identifier: Apache-2.0
"""The dynamic map of few-bit numbers in [0, 1]: decades of evenly spaced values, finer towards 1.

With D decades of which the first has f values, decade i = 0 ... D - 1 is cut into L = f 2^i equal parts from 10^(i-D)
to 10^(i-D+1), and their centers are the values; 1 is one more. A rank is the place of a value in that order, counted
from f: L, ..., 2 L - 1 in decade i and f 2^D for 1. Both ways are arithmetic, because in rank, decades are straight
pieces of a bent line: value to rank is the lowest of their lines, rank to value the highest.
"""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np


def nearest_rank(x: jax.Array, decades: int, first: int) -> jax.Array:
    """The rank, as float32, of the value nearest to x >= 0; in the middle of two, the higher.

    Up to rounding errors: where x is within a millionth of a middle, it can be either. If `first` is 1, what is nearer
    to 0 than to the smallest value has rank 0; else it has the rank of that value or less.
    """
    lines = []  # of nine times the rank, since a part of a decade is 9 / (10 L) of its upper end
    for i in range(decades):
        parts = first * 2.0**i
        at = x * np.float32(parts * 10.0 ** (decades - i))
        line = at + np.float32(8 * parts)
        if i > 0:
            # The middle between the decade's first value and the last one below is not at 10^(i-D) but 1/5 part above,
            # since parts below are 5 times smaller: another line passes there, and above the middles beside.
            line = jnp.minimum(line, 2 * at + np.float32(7 * parts - 3.6))
        elif first == 1:
            # The middle between 0 and 0.55 is 0.275, of 10^(1-D).
            line = x * np.float32(6 * 10.0 ** (decades - 1)) + np.float32(9 - 6 * 0.275)
        lines.append(line)
    top = first * 2.0**decades
    rank = jnp.minimum(jnp.floor(reduce(jnp.minimum, lines) * np.float32(1 / 9)), top - 1)
    # From half a part, cut in half again, below 1.
    return rank + (x >= np.float32(1 - 0.45 / top)).astype(jnp.float32)


def value_of_rank(rank: jax.Array, decades: int, first: int) -> jax.Array:
    """The value of a rank, a float32 whole number; 0 for ranks below `first`."""
    lines = []
    for i in range(decades):
        parts = first * 2.0**i
        # (1 + 9 (rank - L + 1/2) / L) 10^(i-D) in whole numbers, so that only the factor is rounded.
        lines.append((18 * rank + (9 - 16 * parts)) * np.float32(10.0 ** (i - decades + 1) / (20 * parts)))
    return jnp.where(rank < first, 0, jnp.minimum(reduce(jnp.maximum, lines), 1))
