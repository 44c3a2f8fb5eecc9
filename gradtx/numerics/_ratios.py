# SPDX-License-Identifier: Apache-2.0
"""Norms and their ratios, and inner products with a direction."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._operations import add, divide, exceeds, maximum, multiply, select, sum_of
from gradtx.core._rescaling import in_range, is_small
from gradtx.numerics._safe import abs_sq, euclidean_norm, norm_of


def l2_norm(x: jax.Array, least: Any = 0.0) -> jax.Array:
    """sqrt(Σ |x|²), but at least `least`; its derivative is 0 for x = 0."""
    return at_least(euclidean_norm(x, least=least), least)


def at_least(norm: jax.Array, least: Any) -> jax.Array:
    """max(norm, least), for a norm, which is at least 0."""
    return norm if isinstance(least, int | float) and least <= 0 else maximum(norm, least)


def l2_norms(x: jax.Array, y: jax.Array, axis: Any = None) -> list[jax.Array]:
    """The norms of two arrays of one shape, along some axes, which stay with size 1, or all, which do not.

    They are under one condition whether squares left their range: each makes a program longer and a step slower. Small
    arrays need none.
    """

    def squares(of: jax.Array) -> jax.Array:
        return sum_of(abs_sq(of), axis, keepdims=axis is not None)

    def again(scales: list[jax.Array]) -> list[jax.Array]:
        return [squares(divide(of, scale)) for of, scale in zip((x, y), scales, strict=True)]

    across = reductions.across(x, axis)
    if axis is None and across is None and is_small(x) and is_small(y):
        return [euclidean_norm(x), euclidean_norm(y)]
    return [norm_of(found) for found in in_range([squares(x), squares(y)], again, across)]


def along(x: jax.Array, unit: jax.Array, axis: Any = None) -> jax.Array:
    """The real inner product <x, unit> along some axes, which stay with size 1, or all, which do not.

    Complex numbers count as pairs of real and imaginary parts.
    """
    product = jnp.real(jnp.conj(unit) * x) if jnp.iscomplexobj(unit) or jnp.iscomplexobj(x) else unit * x
    return reductions.total(product, axis, keepdims=axis is not None)


def trust_ratio(param_norm: jax.Array, update_norm: jax.Array, coefficient: Any = 1.0, eps: Any = 0.0) -> jax.Array:
    """coefficient * param_norm / (update_norm + eps), or 1 where one of the norms is 0."""
    known = jnp.logical_and(exceeds(param_norm, 0), exceeds(update_norm, 0))
    return select(known, divide(multiply(coefficient, param_norm), select(known, add(update_norm, eps), 1)), 1)
