# SPDX-License-Identifier: Apache-2.0
"""Independent normal distributions of parameters, for stochastic gradients."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._kinds import ArrayLike


class MultiNormal(NamedTuple):
    """N(loc, exp(log_scale)²) for each element, independently; samples and densities are differentiable in both."""

    loc: jax.Array
    log_scale: jax.Array

    @property
    def params(self) -> list[jax.Array]:
        """The means and the logarithms of the standard deviations."""
        return [self.loc, self.log_scale]

    def sample(self, shape: Sequence[int], key: jax.Array) -> jax.Array:
        """loc + exp(log_scale) z with standard normal z, for `shape` samples."""
        noise = jax.random.normal(key, (*shape, *self.loc.shape), self.loc.dtype)
        wide = widen((self.loc, self.log_scale, noise), compute_dtype(self.loc, self.log_scale))
        with promotion(noise), jax.numpy_rank_promotion("allow"):
            return (wide[0] + jnp.exp(wide[1]) * wide[2]).astype(self.loc.dtype)

    def log_prob(self, x: Any) -> jax.Array:
        """The logarithm of the density at x, whose last axes are those of `loc`; in at least float32."""
        x = jnp.asarray(x)
        loc, log_scale, x = widen((self.loc, self.log_scale, x))
        with jax.numpy_rank_promotion("allow"):
            z = (x - loc) * jnp.exp(-log_scale)
            return jnp.sum(-0.5 * z * z - log_scale - 0.5 * math.log(2 * math.pi), axis=tuple(range(-loc.ndim, 0)))


@checked
def multi_normal(loc: ArrayLike, log_scale: ArrayLike) -> MultiNormal:
    """The distribution of independent normal numbers N(loc, exp(log_scale)²).

    Args:
      loc: the means, an array.
      log_scale: the logarithms of the standard deviations, of the same shape.

    Raises:
      ValueError: if the shapes differ.
    """
    loc, log_scale = jnp.asarray(loc), jnp.asarray(log_scale)
    if loc.shape != log_scale.shape:
        raise ValueError(f"multi_normal: log_scale must have loc's shape {loc.shape}, got {log_scale.shape}")
    return MultiNormal(loc, log_scale)
