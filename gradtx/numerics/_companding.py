# SPDX-License-Identifier: Apache-2.0
"""Companding: odd increasing functions that compress large numbers and keep small ones apart, and their inverses."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.numerics._safe import abs_sq, safe_sqrt


def mu_law(x: jax.Array, mu: Any) -> jax.Array:
    """sign(x) log(1 + mu |x|) / log(1 + mu); 1 stays 1."""
    whole = _log1p(mu)
    return _by_size(x, lambda a: jnp.log1p(mu * a) / whole, mu / whole)


def mu_law_inverse(y: jax.Array, mu: Any) -> jax.Array:
    """sign(y) ((1 + mu)^|y| - 1) / mu."""
    whole = _log1p(mu)
    return _by_size(y, lambda a: jnp.expm1(whole * a) / mu, whole / mu)


def a_law(x: jax.Array, a: Any) -> jax.Array:
    """sign(x) a |x| / (1 + log a) for |x| < 1 / a, else sign(x) (1 + log(a |x|)) / (1 + log a); 1 stays 1."""
    whole = 1 + _log(a)

    def size(b: jax.Array) -> jax.Array:
        return jnp.where(a * b < 1, a * b, 1 + jnp.log(jnp.maximum(a * b, 1))) / whole

    return _by_size(x, size, a / whole)


def a_law_inverse(y: jax.Array, a: Any) -> jax.Array:
    """sign(y) |y| (1 + log a) / a for |y| < 1 / (1 + log a), else sign(y) exp(|y| (1 + log a) - 1) / a."""
    whole = 1 + _log(a)

    def size(b: jax.Array) -> jax.Array:
        return jnp.where(whole * b < 1, whole * b, jnp.exp(jnp.maximum(whole * b, 1) - 1)) / a

    return _by_size(y, size, whole / a)


def softsign(x: jax.Array, limit: Any) -> jax.Array:
    """x / (1 + |x| / limit), which stays below the limit."""
    return x / (1 + _size(x) / limit)


def softsign_inverse(y: jax.Array, limit: Any) -> jax.Array:
    """y / (1 - |y| / limit); a magnitude |y| >= limit counts as the largest number below the limit."""
    ratio = _size(y) / limit
    return y / (1 - jnp.minimum(ratio, 1 - float(jnp.finfo(ratio.dtype).epsneg)))


def _by_size(x: jax.Array, f: Callable[[jax.Array], jax.Array], slope: Any) -> jax.Array:
    """x f(|x|) / |x|, and x times the slope of f at 0 where x is 0; complex numbers keep their direction."""
    size = _size(x)
    nonzero = size > 0
    safe = jnp.where(nonzero, size, 1)
    return x * jnp.where(nonzero, f(safe) / safe, slope)


def _size(x: jax.Array) -> jax.Array:
    return safe_sqrt(abs_sq(x)) if jnp.iscomplexobj(x) else jnp.abs(x)


def _log1p(x: Any) -> Any:
    return math.log1p(x) if isinstance(x, int | float) else jnp.log1p(x)


def _log(x: Any) -> Any:
    return math.log(x) if isinstance(x, int | float) else jnp.log(x)
