# SPDX-License-Identifier: Apache-2.0
"""Norms with a floor, whose derivatives are finite everywhere."""

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._dtypes import promotion, widen
from gradtx.core._kinds import ArrayLike, Axes, Order
from gradtx.core._ranges import Minimum, NonNegative
from gradtx.numerics._safe import abs_sq


@checked
def safe_norm(
    x: ArrayLike, min_norm: Minimum, ord: Order | None = None, axis: Axes | None = None, keepdims: bool = False
) -> jax.Array:
    """max(‖x‖, min_norm), whose derivative is 0 where the norm is not larger than `min_norm`, for x = 0 too.

    Computed in at least float32, without overflow or underflow of squares.

    Args:
      x: an array.
      min_norm: the lower bound of the result, at least 0.
      ord, axis, keepdims: which norm, as in `jnp.linalg.norm`.
    """
    x = jnp.asarray(x)
    x = widen(x)
    if axis is None and ord is None:
        x, axis, shape = jnp.ravel(x), 0, (1,) * x.ndim
    else:
        shape = None
    sizes = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis, keepdims=True, initial=0))
    sizes = jnp.where((sizes > 0) & jnp.isfinite(sizes), sizes, 1)
    sizes = sizes if ord is None or ord != 0 else jnp.ones_like(sizes)  # ord 0 counts what is not 0

    def norm(of: jax.Array) -> jax.Array:
        with promotion(of):
            return sizes * jnp.linalg.norm(of / sizes, ord, axis, keepdims=True)

    least = jnp.asarray(min_norm, sizes.dtype)
    larger = ~(jax.lax.stop_gradient(norm(x)) <= least)  # NaN is not <= either
    result = jnp.where(larger, norm(jnp.where(larger, x, jnp.ones_like(x))), least)
    if shape is not None:
        return jnp.reshape(result, shape if keepdims else ())
    return result if keepdims else jnp.squeeze(result, axis)


@checked
def safe_root_mean_squares(x: ArrayLike, min_rms: NonNegative) -> jax.Array:
    """max(sqrt(mean(|x|²)), min_rms), whose derivative is 0 where the root is not larger than `min_rms`.

    Computed in at least float32, without overflow or underflow of squares.

    Args:
      x: an array; without elements, the result is `min_rms`.
      min_rms: the lower bound of the result, at least 0.
    """
    x = jnp.asarray(x)
    x = widen(x)
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(x), initial=0))
    size = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    with promotion(x):
        mean = jnp.sum(abs_sq(x / size)) / max(x.size, 1)
    least = jnp.asarray(min_rms, mean.dtype)
    larger = ~(size * jnp.sqrt(jax.lax.stop_gradient(mean)) <= least)
    return jnp.where(larger, size * jnp.sqrt(jnp.where(larger, mean, 1)), least)
