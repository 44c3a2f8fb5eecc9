# SPDX-License-Identifier: Apache-2.0
"""Step counts that saturate instead of wrapping."""

from typing import Any

import jax
import jax.numpy as jnp


def safe_increment(count: jax.Array) -> jax.Array:
    """`count + 1`, or `count` when its dtype could not hold that.

    Args:
      count: a scalar (or array) of any real dtype; the dtype is kept.
    """
    count = jnp.asarray(count)
    kind = jnp.iinfo if jnp.issubdtype(count.dtype, jnp.integer) else jnp.finfo
    return jnp.minimum(count, kind(count.dtype).max - 1) + jnp.ones([], count.dtype)


def has_count(state: Any) -> bool:
    """Whether a state, or a state class, is a named tuple that counts its steps."""
    return "count" in getattr(state, "_fields", ())
