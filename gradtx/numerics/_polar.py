# SPDX-License-Identifier: Apache-2.0
"""What rules around the polar factor of a momentum share: that momentum, and the factor."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._dtypes import widen
from gradtx.numerics._averages import ema
from gradtx.numerics._newton_schulz import coefficients_of, orthogonalized


def jordan_momentum(beta: Any, nesterov: bool) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Muon's momentum without bias correction, as the `enter` of `per_matrix`: what to orthogonalize, and the average.

    ```
    mu = beta mu + (1 - beta) g        x = mu, or beta mu + (1 - beta) g with `nesterov`
    ```
    """

    def enter(g: jax.Array, mu: jax.Array, p: Any, t: Any) -> tuple[jax.Array, jax.Array]:
        mu = ema(mu, g, beta)
        return (ema(mu, g, beta) if nesterov else mu), mu

    return enter


def polar_factor(where: str, ns_coeffs: Any, eps: Any, dtype: Any = None) -> Callable[[jax.Array], jax.Array]:
    """The function that orthogonalizes a matrix with these coefficients; see `orthogonalized`.

    Args:
      dtype: that of the iterations; None for the matrix's.
    """
    rows = coefficients_of(where, ns_coeffs)
    size = "aol" if isinstance(ns_coeffs, str) and ns_coeffs == "aol" else "frobenius"

    def polar(x: jax.Array) -> jax.Array:
        cast = x if dtype is None else widen(x, dtype)
        least = jnp.asarray(eps, jnp.real(cast).dtype)
        return orthogonalized(cast, jnp.asarray(rows), preconditioning=size, eps=least).astype(x.dtype)

    return polar
