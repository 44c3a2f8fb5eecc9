# SPDX-License-Identifier: Apache-2.0
"""Functions of one array that stay finite at the edges of their domains, derivatives included."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._dtypes import real_dtype
from gradtx.core._operations import add, differs, divide, exceeds, multiply, select, sum_of
from gradtx.core._rescaling import Squares, in_range, in_range_at_once, is_small, limits


@jax.custom_jvp
def safe_sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 instead of infinity at 0.

    A zero gradient puts 0 under every root of an adaptive rule; with the true derivative, differentiating through the
    optimizer would give infinity times zero, NaN.
    """
    return jax.lax.sqrt(x)


@safe_sqrt.defjvp
def _safe_sqrt_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    y = safe_sqrt(x)
    positive = x > 0
    return y, jnp.where(positive, 0.5 / jnp.where(positive, y, 1), 0) * dx


def safe_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """x / y, and 0 with derivative 0 where y is 0."""
    nonzero = differs(y, 0)
    return select(nonzero, divide(x, select(nonzero, y, 1)), 0)


def over_root(x: jax.Array, square: jax.Array, eps: Any = 0.0, eps_root: Any = 0.0) -> jax.Array:
    """x / (sqrt(square + eps_root) + eps), and 0 with derivative 0 where the denominator is 0."""
    root = safe_sqrt(add(square, eps_root))
    # Numbers that the program knows to be positive spare it the question whether the denominator is.
    known = _is_positive(eps, root.dtype) or _is_positive(eps_root, root.dtype)
    return (divide if known else safe_divide)(x, add(root, eps))


def _is_positive(x: Any, dtype: Any) -> bool:
    """Whether this is a Python number, and positive in this dtype also where the smallest numbers are taken for 0."""
    return isinstance(x, int | float) and bool(x >= jnp.finfo(dtype).tiny)


def abs_sq(x: jax.Array) -> jax.Array:
    """The squared magnitude, real also for complex `x`."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else multiply(x, x)


def norm_of(total: Squares, count: Any = 1) -> jax.Array:
    """The norm from what `in_range` makes of a sum of squares; with a count of the numbers, their root mean square."""
    squares, scale = total
    return multiply(scale, safe_sqrt(divide(squares, count)))


def euclidean_norm(
    x: jax.Array, axis: Any = None, keepdims: bool = False, mean: bool = False, least: Any = 0.0
) -> jax.Array:
    """sqrt(Σ |x|²) along some axes or all, also where squares overflow or vanish; its derivative at 0 is 0.

    Args:
      axis, keepdims: as in `jnp.sum`.
      mean: whether to take the mean of the squares, 0 without elements, instead of their sum.
      least: a norm that is smaller need only be known to be so. If this is a Python number, the program is shorter.
    """

    stays = axis is not None  # for the scales, of which there is one for each sum
    only_large = isinstance(least, int | float) and least >= math.sqrt(limits(real_dtype(x.dtype))[0])

    def squares(of: jax.Array) -> jax.Array:
        return sum_of(abs_sq(of), axis, keepdims=stays)

    def again(scale: jax.Array) -> jax.Array:
        return squares(divide(x, scale))

    count = max(reductions.size(x, axis), 1.0) if mean else 1
    across = reductions.across(x, axis)
    at_once = not stays and across is None and is_small(x)
    total = in_range_at_once(x, only_large) if at_once else in_range(squares(x), again, across, only_large)
    found = norm_of(total, count)
    if stays == keepdims:
        return found
    return jnp.squeeze(found, axis) if stays else jnp.expand_dims(found, tuple(range(x.ndim)))


def root_mean_square(x: jax.Array, least: Any = 0.0) -> jax.Array:
    """sqrt(mean(|x|²)), and 0 for an array without elements; `least` as in `euclidean_norm`."""
    return euclidean_norm(x, mean=True, least=least)


def shrink_factor(size: jax.Array, limit: jax.Array | float) -> jax.Array:
    """min(1, limit / size): the factor that brings something of this size to at most the limit."""
    over = exceeds(size, limit)
    if isinstance(limit, int | float) and _is_positive(limit, size.dtype) and limit < math.inf:
        return divide(limit, select(over, size, limit))
    return select(over, divide(limit, select(over, size, 1)), 1)
