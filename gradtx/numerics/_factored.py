# SPDX-License-Identifier: Apache-2.0
"""Second moments in two factors: the means over one axis and over another stand for a whole array."""

import jax
import jax.numpy as jnp

from gradtx.numerics._safe import safe_divide, safe_sqrt

Axes = tuple[int, int]


def factored_axes(shape: tuple[int, ...], min_size: int) -> Axes | None:
    """The two largest axes, (second largest, largest), or None where the smaller of them has less than `min_size`.

    Of equal axes the later counts as the larger.
    """
    if len(shape) < 2:
        return None
    *_, second, largest = sorted(range(len(shape)), key=lambda axis: shape[axis])
    return (second, largest) if shape[second] >= max(min_size, 1) else None


def factor_means(x: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array]:
    """(row, col): the means over the largest axis, and over the second largest."""
    second, largest = axes
    return jnp.mean(x, axis=largest), jnp.mean(x, axis=second)


def factored_root(row: jax.Array, col: jax.Array, axes: Axes) -> jax.Array:
    """sqrt(row col / mean(row)), where col and row are the means of an array and the result is like that array.

    Root by root: the factors go down to 1e-33, where a product underflows in float32 and the derivative of a quotient
    overflows.
    """
    second, largest = axes
    row, col = jnp.expand_dims(row, largest), jnp.expand_dims(col, second)
    overall = safe_sqrt(jnp.mean(row, axis=second, keepdims=True))
    return safe_divide(safe_sqrt(row), overall) * safe_sqrt(col)


@jax.custom_jvp
def over_root(g: jax.Array, root: jax.Array) -> jax.Array:
    """g / root, and 0 with derivative 0 where the root is 0.

    The derivative never squares the root, which is 1e-15 for gradients of 0: then 1 / root² times what comes from later
    steps can be infinite, and infinity times g is NaN.
    """
    return safe_divide(g, root)


@over_root.defjvp
def _over_root_jvp(primals: tuple, tangents: tuple) -> tuple:
    (g, root), (dg, droot) = primals, tangents
    u = over_root(g, root)
    return u, safe_divide(dg, root) - safe_divide(droot, root) * u
