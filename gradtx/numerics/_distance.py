# SPDX-License-Identifier: Apache-2.0
"""Shared by the rules that estimate their distance to the solution."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.numerics._safe import safe_divide


def inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """The real inner product Σ a b; complex numbers count as pairs of real and imaginary parts."""
    product = jnp.conj(a) * b if jnp.iscomplexobj(a) or jnp.iscomplexobj(b) else a * b
    return jnp.sum(jnp.real(product))


def larger_estimate(d: jax.Array, numerator: jax.Array, size: jax.Array, growth_rate: Any = None) -> jax.Array:
    """max(d, numerator / size), at most growth_rate d; d while nothing has been measured (size 0)."""
    estimate = safe_divide(numerator, size)
    return jnp.maximum(d, estimate if growth_rate is None else jnp.minimum(estimate, growth_rate * d))
