# SPDX-License-Identifier: Apache-2.0
"""Factored second moments: the means over each of two axes represent the whole array."""

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._operations import multiply
from gradtx.numerics._safe import safe_divide, safe_sqrt

Axes = tuple[int, int]


def factored_axes(shape: tuple[int, ...], min_size: int) -> Axes | None:
    """The two largest axes, (second largest, largest), or None if the smaller of them is below `min_size`.

    Of axes with equal sizes, the later one counts as larger.
    """
    if len(shape) < 2:
        return None
    *_, second, largest = sorted(range(len(shape)), key=lambda axis: shape[axis])
    return (second, largest) if shape[second] >= max(min_size, 1) else None


def factor_means(x: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array]:
    """(row, col): the means over the largest axis and over the second largest."""
    second, largest = axes
    return reductions.mean(x, axis=largest), reductions.mean(x, axis=second)


def factored_root(row: jax.Array, col: jax.Array, axes: Axes) -> jax.Array:
    """sqrt(row col / mean(row)): the square root of the array whose means are `row` and `col`.

    Each root is taken by itself: the factors go down to 1e-33, where their product underflows in float32 and the
    derivative of a quotient overflows.
    """
    second, largest = axes
    row, col = jnp.expand_dims(row, largest), jnp.expand_dims(col, second)
    overall = safe_sqrt(reductions.mean(row, axis=second, keepdims=True))
    return multiply(safe_divide(safe_sqrt(row), overall), safe_sqrt(col))


@jax.custom_jvp
def over_root(g: jax.Array, root: jax.Array) -> jax.Array:
    """g / root, and 0 with derivative 0 where the root is 0.

    The derivative avoids root²: for gradients of 0 the root is 1e-15, so that a derivative of later steps times
    1 / root² can be infinite, and infinity times g is NaN.
    """
    return safe_divide(g, root)


@over_root.defjvp
def _over_root_jvp(primals: tuple, tangents: tuple) -> tuple:
    (g, root), (dg, droot) = primals, tangents
    u = over_root(g, root)
    return u, safe_divide(dg, root) - safe_divide(droot, root) * u
