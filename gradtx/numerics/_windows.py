# SPDX-License-Identifier: Apache-2.0
"""Statistics of the latest values of a number, over a window of fixed size W.

A window is an array `values` of shape (W,), oldest first, and `filled`, the number of its last entries that are in use,
from 0 to W. Only `push` changes it, and only for accepted values, so that a spike or NaN never enters the statistics.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.numerics._safe import abs_sq, safe_sqrt

NORMAL_MAD = 1.482602218505602
"""The standard deviation of a normal distribution over the median of its absolute deviations."""


def push(values: jax.Array, filled: jax.Array, x: jax.Array, ok: Any = True) -> tuple[jax.Array, jax.Array]:
    """The window with `x` as its newest value, without its oldest if it was full; unchanged if `ok` is False."""
    x = jnp.asarray(x).astype(values.dtype)
    later = jnp.concatenate([values[1:], x[None]])
    more = jnp.minimum(filled + 1, values.size).astype(filled.dtype)
    return jnp.where(ok, later, values), jnp.where(ok, more, filled)


def in_use(values: jax.Array, filled: jax.Array) -> jax.Array:
    """Which entries are in use, as booleans of shape (W,)."""
    return jnp.arange(values.size, dtype=filled.dtype) >= values.size - filled


def mean_and_std(values: jax.Array, filled: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean and the standard deviation (with divisor n, not n - 1) of the values; 0 and 0 for none."""
    used = in_use(values, filled)
    number = jnp.maximum(filled, 1).astype(values.dtype)
    mean = jnp.sum(jnp.where(used, values, 0)) / number
    return mean, safe_sqrt(jnp.sum(jnp.where(used, abs_sq(values - mean), 0)) / number)


def quantile(values: jax.Array, filled: jax.Array, q: Any) -> jax.Array:
    """The q-quantile, q in [0, 1], interpolated linearly between the sorted values; 0 for none."""
    ordered = jnp.sort(jnp.where(in_use(values, filled), values, jnp.inf))  # what is not in use comes last
    at = q * jnp.maximum(filled - 1, 0).astype(values.dtype)
    low = jnp.floor(at)
    i = low.astype(jnp.int32)
    a, b = ordered[i], ordered[jnp.clip(i + 1, 0, jnp.maximum(filled - 1, 0))]
    return jnp.where(filled > 0, a + (at - low) * (b - a), 0)


def median_and_mad(values: jax.Array, filled: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The median, and the median absolute deviation, scaled to the standard deviation of a normal distribution."""
    middle = quantile(values, filled, 0.5)
    return middle, NORMAL_MAD * quantile(jnp.abs(values - middle), filled, 0.5)


def z_score(x: jax.Array, center: jax.Array, spread: jax.Array) -> jax.Array:
    """How many spreads `x` lies above the center, (x - center) / spread; infinite for no spread, NaN for NaN."""
    spread = _at_least(center, spread)
    off = x - center
    known = spread > 0
    beyond = jnp.where(off == 0, 0, jnp.sign(off) * jnp.inf)  # the sign of NaN is NaN
    return jnp.where(known, off / jnp.where(known, spread, 1), beyond)


def limit(center: jax.Array, spread: jax.Array, deviations: Any) -> jax.Array:
    """The value that lies `deviations` spreads above the center."""
    return center + deviations * _at_least(center, spread)


def _at_least(center: jax.Array, spread: jax.Array) -> jax.Array:
    # At least a few rounding errors of the center: among equal values, a difference in the last digit is no spike.
    return jnp.maximum(spread, 8 * jnp.finfo(center.dtype).eps * jnp.abs(center))
