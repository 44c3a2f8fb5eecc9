# SPDX-License-Identifier: Apache-2.0
"""Sums of squares that leave the range of their dtype: taken again of numbers that are brought back into it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._dtypes import promotion, widen


def in_range(total: jax.Array, again: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
    """(Σ |x/s|², s): the sum as it is and s = 1, if no square in it overflowed or vanished; else s is a power of two.

    Squares leave the range of float32 for numbers from 1e19 on and below 1e-19. The second pass runs only then, or
    where all numbers are 0; under `vmap` both run and the right one is taken.

    Args:
      total: Σ |x|², or several such sums.
      again: Σ |x/s|² for the s that it is given, of the shape of `total`.
    """
    limits = jnp.finfo(total.dtype)
    # What a sum of at least this size lost to underflow is less than its rounding.
    small, large = total < float(limits.tiny) / float(limits.eps), total == jnp.inf
    # These leave room for sums of 2^31 squares of the largest number, and bring up the smallest. A power of two divides
    # without rounding, and one that is known beforehand spares a search for the largest number.
    much, little = 2.0 ** (limits.maxexp * 5 // 8), 2.0 ** -(limits.maxexp * 25 // 32)

    def rescaled() -> tuple[jax.Array, jax.Array]:
        scale = jnp.where(large, much, jnp.where(small, little, 1)).astype(total.dtype)
        return again(scale), scale

    # The scale 1 is made of the total, which is finite here, to be sharded as the total is, as in the other branch.
    return branch(~jnp.any(small | large), lambda: (total, 0 * total + 1), rescaled)


def divided(x: Any, scale: jax.Array) -> Any:
    """x / scale, for an array or a tree of them, in at least the dtype of the scale."""
    x = widen(x, scale.dtype)
    with promotion(x):
        return jax.tree.map(lambda of: of / scale, x)
