# SPDX-License-Identifier: Apache-2.0
"""Random keys from a seed or a key."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def key_maker(where: str, source: Any, *, typed: bool = True) -> Callable[[], jax.Array]:
    """A function that makes a new key from `source`, a key or a whole number, at each call.

    Donating a state thus leaves the caller's key alive, and nothing is computed before the call.

    Args:
      where: the start of the error's text, "function: argument".
      typed: True for a `jax.random.key`, False for a `jax.random.PRNGKey` unless the source is a typed key.
    """

    def fresh() -> jax.Array:
        if isinstance(source, jax.Array) and jnp.issubdtype(source.dtype, jax.dtypes.prng_key):
            data = jnp.copy(jax.random.key_data(source))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(source))
        if not jnp.issubdtype(jnp.result_type(source), jnp.integer):
            raise TypeError("it is not a whole number")
        if jnp.ndim(source) == 0:
            return jax.random.key(source) if typed else jax.random.PRNGKey(source)
        key = jax.random.wrap_key_data(jnp.array(source))
        return key if typed else jax.random.key_data(key)

    if type(source) is int and 0 <= source < 2**31:  # nothing to find out
        return fresh
    try:
        jax.eval_shape(fresh)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where} must be a key of jax.random or a whole number, got {source!r}") from error
    return fresh
