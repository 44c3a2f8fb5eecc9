# SPDX-License-Identifier: Apache-2.0
"""Roots and powers whose derivative at 0 is 0 instead of infinity, for slots that zero gradients leave at 0."""

from typing import Any

import jax
import jax.numpy as jnp


def safe_cbrt(x: jax.Array) -> jax.Array:
    """The cube root of x >= 0."""
    positive = x > 0
    return jnp.where(positive, jnp.cbrt(jnp.where(positive, x, 1)), 0)


def safe_power(x: jax.Array, power: Any) -> jax.Array:
    """x^power for x >= 0 and power >= 0; 0^0 is 1."""
    positive = x > 0
    at_zero = jnp.where(power == 0, 1.0, 0.0)
    return jnp.where(positive, jnp.where(positive, x, 1) ** power, at_zero)
