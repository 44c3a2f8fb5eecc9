# SPDX-License-Identifier: Apache-2.0
"""Norms and their ratios."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.numerics._safe import euclidean_norm


def l2_norm(x: jax.Array, least: Any = 0.0) -> jax.Array:
    """sqrt(Σ |x|²), but at least `least`; its derivative is 0 for x = 0."""
    return jnp.maximum(euclidean_norm(x), least)


def trust_ratio(param_norm: jax.Array, update_norm: jax.Array, coefficient: Any = 1.0, eps: Any = 0.0) -> jax.Array:
    """coefficient * param_norm / (update_norm + eps), or 1 where one of the norms is 0."""
    known = (param_norm > 0) & (update_norm > 0)
    return jnp.where(known, coefficient * param_norm / jnp.where(known, update_norm + eps, 1), 1)
