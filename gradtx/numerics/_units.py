# SPDX-License-Identifier: Apache-2.0
"""Unit-wise norms: the norms of the weights that lead to each unit of a layer."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._checked import checked
from gradtx.core._dtypes import promotion, widen
from gradtx.core._kinds import ArrayLike, AxesOrOne
from gradtx.core._operations import divide, exceeds, maximum, select
from gradtx.core._ranges import NonNegative
from gradtx.numerics._safe import euclidean_norm


def unitwise_axes(shape: tuple[int, ...], axis: int | tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The axes over which the unit-wise norm of an array of this shape is taken; see `unitwise_norm`.

    Raises:
      ValueError: for an axis that the shape does not have.
    """
    rank = len(shape)
    if axis is None:
        if sum(n != 1 for n in shape) <= 1:
            return tuple(range(rank))
        return (0,) if rank < 4 else tuple(range(rank - 1))
    axes = axis if isinstance(axis, tuple) else (axis,)
    for a in axes:
        if not -rank <= a < rank:
            raise ValueError(f"there is no axis {a} in the shape {shape}")
    return axes


@checked
def unitwise_norm(x: ArrayLike, axis: AxesOrOne | None = None) -> jax.Array:
    """sqrt(Σ |x|²) for each unit, repeated to the shape of x, in at least float32.

    | shape of x | the norm is over |
    |---|---|
    | a scalar, a vector, or at most one axis longer than 1 | all of x |
    | rank 2 or 3 | axis 0, the inputs of a dense layer |
    | rank 4 or more | all axes but the last, the window and inputs of a convolution |

    Args:
      x: an array.
      axis: one axis or several over which the norm is taken; None for those of the table.

    Raises:
      ValueError: for an axis that x does not have.

    Reference: Brock et al. 2021, arXiv:2102.06171, section 4.
    """
    x = widen(jnp.asarray(x))
    return jnp.broadcast_to(euclidean_norm(x, unitwise_axes(reductions.whole_shape(x), axis), keepdims=True), x.shape)


@checked
def unitwise_clip(g_norm: ArrayLike, max_norm: ArrayLike, grad: ArrayLike, div_eps: NonNegative = 1e-6) -> jax.Array:
    """grad where g_norm <= max_norm, elsewhere grad * max_norm / max(g_norm, div_eps); in at least float32.

    Args:
      g_norm, max_norm: for each element of the gradient, the norm of its unit and the limit of that norm, as
        `unitwise_norm` returns them.
      grad: the gradient.
      div_eps: the smallest divisor, positive.

    Raises:
      ValueError: if the three shapes differ.
    """
    if not jnp.shape(g_norm) == jnp.shape(max_norm) == jnp.shape(grad):
        raise ValueError(
            f"unitwise_clip: g_norm, max_norm and grad must have the same shape, "
            f"got {jnp.shape(g_norm)}, {jnp.shape(max_norm)} and {jnp.shape(grad)}"
        )
    arrays = [jnp.asarray(x) for x in (g_norm, max_norm, grad)]
    g_norm, max_norm, grad = widen(arrays)
    with promotion(grad):
        return grad * clip_factor(g_norm, max_norm, div_eps)


def clip_factor(norm: jax.Array, limit: jax.Array, least: Any = 1e-6) -> jax.Array:
    """1 where the norm is within its limit, elsewhere limit / max(norm, least)."""
    over = exceeds(norm, limit)
    return select(over, divide(limit, select(over, maximum(norm, least), 1)), 1)
