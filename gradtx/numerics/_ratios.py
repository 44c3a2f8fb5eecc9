# SPDX-License-Identifier: Apache-2.0
"""Norms and their ratios."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._rescaling import in_range
from gradtx.numerics._safe import abs_sq, euclidean_norm, norm_of


def l2_norm(x: jax.Array, least: Any = 0.0) -> jax.Array:
    """sqrt(Σ |x|²), but at least `least`; its derivative is 0 for x = 0."""
    return jnp.maximum(euclidean_norm(x), least)


def l2_norms(x: jax.Array, y: jax.Array) -> jax.Array:
    """The norms of both, under one condition whether squares left their range: each makes a program longer."""

    def squares(scale: jax.Array) -> jax.Array:
        return jnp.stack([jnp.sum(abs_sq(x / scale[0])), jnp.sum(abs_sq(y / scale[1]))])

    total = jnp.stack([jnp.sum(abs_sq(x)), jnp.sum(abs_sq(y))])
    return norm_of(in_range(total, squares))


def trust_ratio(param_norm: jax.Array, update_norm: jax.Array, coefficient: Any = 1.0, eps: Any = 0.0) -> jax.Array:
    """coefficient * param_norm / (update_norm + eps), or 1 where one of the norms is 0."""
    known = (param_norm > 0) & (update_norm > 0)
    return jnp.where(known, coefficient * param_norm / jnp.where(known, update_norm + eps, 1), 1)
