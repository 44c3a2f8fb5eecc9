# SPDX-License-Identifier: Apache-2.0
"""Sums of squares that leave the range of their dtype: taken again of numbers that are divided by the largest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._dtypes import promotion, widen


def in_range(
    total: jax.Array, again: Callable[[jax.Array], jax.Array], largest: Callable[[], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """(Σ |x/s|², s): the sum as it is and s = 1, if no square in it overflowed or vanished; else s is the largest |x|.

    Squares leave the range of float32 for numbers from 1e19 on and below 1e-19. The second pass runs only then, or
    where all numbers are 0; under `vmap` both run and the right one is taken.

    Args:
      total: Σ |x|², or several such sums.
      again: Σ |x/s|² for the s that it is given, of the shape of `total`.
      largest: the largest |x|, of that shape.
    """
    limits = jnp.finfo(total.dtype)
    # What a sum of at least this size lost to underflow is less than its rounding.
    fits = jnp.all((total >= float(limits.tiny) / float(limits.eps)) & (total < jnp.inf))

    def rescaled() -> tuple[jax.Array, jax.Array]:
        scale = jax.lax.stop_gradient(largest())
        # Where a number is infinite or NaN, so is the norm.
        scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
        return again(scale), scale

    # The scale 1 is made of the total, which is finite here, to be sharded as the total is, as in the other branch.
    return branch(fits, lambda: (total, 0 * total + 1), rescaled)


def divided(x: Any, scale: jax.Array) -> Any:
    """x / scale, for an array or a tree of them, in at least the dtype of the scale."""
    x = widen(x, scale.dtype)
    with promotion(x):
        return jax.tree.map(lambda of: of / scale, x)
