# SPDX-License-Identifier: Apache-2.0
"""Kullback-Leibler divergences."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Axes, Mask
from gradtx.losses._common import Axis, checked_axis, clamped, hide, mask_of, same_shape


@checked
def kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axes | None = -1, where: Mask | None = None
) -> jax.Array:
    """Σ t (log t - log p) along an axis, where 0 log 0 is 0.

    It is at least 0 for probabilities that sum to 1: a negative sum no larger than the rounding of its terms is 0.

    Args:
      log_predictions: log p, which may be -inf.
      targets: probabilities t, of the same shape. The derivative with respect to a target of 0 is set to 0.
      where: True for the entries that count.

    Raises: ValueError if the shapes differ.

    Reference: Kullback and Leibler 1951, doi:10.1214/aoms/1177729694.
    """
    name = "kl_divergence"
    return _divergence(name, _relative_entropy, axis, where, log_predictions=log_predictions, targets=targets)


@checked
def kl_divergence_with_log_targets(
    log_predictions: ArrayLike, log_targets: ArrayLike, axis: Axes | None = -1, where: Mask | None = None
) -> jax.Array:
    """Σ t (log t - log p) along an axis, where both arguments are logarithms; at least 0 as `kl_divergence` is.

    Args:
      log_predictions: log p, which may be -inf.
      log_targets: log t, of the same shape, which may be -inf for a target of 0.
      where: True for the entries that count.

    Raises: ValueError if the shapes differ.
    """

    def terms(log_p: jax.Array, log_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Where the target is 0, so is the term for every log p but NaN, which is passed on.
        zero = jnp.isneginf(log_t) & ~jnp.isnan(log_p)
        log_p, log_t = jnp.where(zero, 0, log_p), jnp.where(zero, 0, log_t)
        return _weighted(jnp.where(zero, 0, jnp.exp(log_t)), log_t, log_p)

    name = "kl_divergence_with_log_targets"
    return _divergence(name, terms, axis, where, log_predictions=log_predictions, log_targets=log_targets)


@checked
def generalized_kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axes | None = -1, where: Mask | None = None
) -> jax.Array:
    """Σ t (log t - log p) - t + p along an axis: at least 0 also if p and t do not sum to 1, and convex in both.

    Args:
      log_predictions: log p, which may be -inf.
      targets: t, not negative, of the same shape.
      where: True for the entries that count.

    Raises: ValueError if the shapes differ.
    """
    name = "generalized_kl_divergence"
    return _divergence(name, _generalized, axis, where, log_predictions=log_predictions, targets=targets)


def _relative_entropy(log_p: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    zero = (t == 0) & ~jnp.isnan(log_p)
    log_p, safe = jnp.where(zero, 0, log_p), jnp.where(zero, 1, t)
    return _weighted(jnp.where(zero, 0, safe), jnp.log(safe), log_p)


def _weighted(t: jax.Array, log_t: jax.Array, log_p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """t (log t - log p), and the size of the numbers that it is the difference of."""
    return t * (log_t - log_p), t * (1 + jnp.abs(log_t) + jnp.abs(log_p))


def _generalized(log_p: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    terms, _ = _relative_entropy(log_p, t)
    terms = clamped(terms - t + jnp.exp(log_p), 0)
    return terms, jnp.zeros_like(terms)


def _divergence(loss: str, f: Callable, axis: Axis, where: Any, **arrays: Any) -> jax.Array:
    log_p, t = same_shape(loss, **arrays)
    axes = checked_axis(loss, axis, log_p.ndim)
    mask = mask_of(loss, where, log_p.shape)
    terms, sizes = (jnp.sum(hide(mask, x), axis=axes) for x in f(hide(mask, log_p), hide(mask, t)))
    dtypes = [x.dtype for x in map(jnp.asarray, arrays.values()) if jnp.issubdtype(x.dtype, jnp.floating)]
    rounding = 4 * max((float(jnp.finfo(d).eps) for d in dtypes), default=0.0) * jax.lax.stop_gradient(sizes)
    # Numbers that do not sum to 1, or of which some are masked, may have a sum that is truly negative.
    return jnp.where(-terms <= rounding, clamped(terms, 0), terms)
