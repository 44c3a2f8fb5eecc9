# SPDX-License-Identifier: Apache-2.0
"""Bounds on the elements of one array; None for no bound."""

from typing import Any

import jax
import jax.numpy as jnp


def clip_to(p: jax.Array, lower: Any, upper: Any) -> jax.Array:
    """The nearest array within the bounds, in the dtype of `p`."""
    if lower is not None:
        p = jnp.maximum(p, jnp.broadcast_to(jnp.asarray(lower, p.dtype), p.shape))
    if upper is not None:
        p = jnp.minimum(p, jnp.broadcast_to(jnp.asarray(upper, p.dtype), p.shape))
    return p


def is_free(p: jax.Array, g: jax.Array, lower: Any, upper: Any) -> jax.Array:
    """False for elements at a bound that a step along -g would push out of the bounds; NaN counts as free."""
    free = jnp.ones(p.shape, bool)
    if lower is not None:
        free &= ~((p <= jnp.broadcast_to(jnp.asarray(lower, p.dtype), p.shape)) & (g > 0))
    if upper is not None:
        free &= ~((p >= jnp.broadcast_to(jnp.asarray(upper, p.dtype), p.shape)) & (g < 0))
    return free
