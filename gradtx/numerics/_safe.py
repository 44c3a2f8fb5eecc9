# SPDX-License-Identifier: Apache-2.0
"""Functions of one array that stay finite at the edges of their domains, derivatives included."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._rescaling import in_range


@jax.custom_jvp
def safe_sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 instead of infinity at 0.

    A zero gradient puts 0 under every root of an adaptive rule; with the true derivative, differentiating through the
    optimizer would give infinity times zero, NaN.
    """
    return jnp.sqrt(x)


@safe_sqrt.defjvp
def _safe_sqrt_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    y = safe_sqrt(x)
    positive = x > 0
    return y, jnp.where(positive, 0.5 / jnp.where(positive, y, 1), 0) * dx


def safe_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """x / y, and 0 with derivative 0 where y is 0."""
    nonzero = y != 0
    return jnp.where(nonzero, x / jnp.where(nonzero, y, 1), 0)


def abs_sq(x: jax.Array) -> jax.Array:
    """The squared magnitude, real also for complex `x`."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x * x


def norm_of(total: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The norm from what `in_range` makes of a sum of squares."""
    squares, scale = total
    return scale * safe_sqrt(squares)


def euclidean_norm(x: jax.Array, axis: Any = None, keepdims: bool = False, mean: bool = False) -> jax.Array:
    """sqrt(Σ |x|²) along some axes or all, also where squares overflow or vanish; its derivative at 0 is 0.

    Args:
      axis, keepdims: as in `jnp.sum`.
      mean: whether to take the mean of the squares, 0 without elements, instead of their sum.
    """

    def squares(of: jax.Array) -> jax.Array:
        total = jnp.sum(abs_sq(of), axis=axis, keepdims=True)
        return total / max(reductions.size(x, axis), 1.0) if mean else total

    found = norm_of(in_range(squares(x), lambda scale: squares(x / scale), reductions.across(x, axis)))
    return found if keepdims else jnp.squeeze(found, axis)


def root_mean_square(x: jax.Array) -> jax.Array:
    """sqrt(mean(|x|²)), and 0 for an array without elements."""
    return euclidean_norm(x, mean=True)


def shrink_factor(size: jax.Array, limit: jax.Array | float) -> jax.Array:
    """min(1, limit / size): the factor that brings something of this size to at most the limit."""
    over = size > limit
    return jnp.where(over, limit / jnp.where(over, size, 1), 1)
