# SPDX-License-Identifier: Apache-2.0
"""Sparsemax losses: like the logistic losses, but with probabilities that can be exactly 0."""

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Mask
from gradtx.losses._common import clamped, elementwise, hide
from gradtx.losses._margin import classified, of_known_labels


@checked
def sparsemax_loss(logits: ArrayLike, labels: ArrayLike, *, where: Mask | None = None) -> jax.Array:
    """f(-x) where the label is 1 and f(x) where it is 0, f(z) = (clip(z, -1, 1) + 1)² / 4 + max(z - 1, 0).

    Args:
      labels: 0 or 1, of the shape of the logits; -1 means 0.
      where: True for the entries that count; the loss is 0 elsewhere.

    Raises: ValueError if the shapes differ.

    Reference: Martins and Astudillo 2016, arXiv:1602.02068.
    """

    def loss(x: jax.Array, y: jax.Array) -> jax.Array:
        z = jnp.where(y > 0, -x, x)
        return (jnp.clip(z, -1, 1) + 1) ** 2 / 4 + jnp.maximum(z - 1, 0)

    return elementwise("sparsemax_loss", loss, where, logits=logits, labels=labels)


@checked
def multiclass_sparsemax_loss(scores: ArrayLike, labels: ArrayLike, *, where: Mask | None = None) -> jax.Array:
    """Σ p x - x[label] + ½ (1 - Σ p²) along the last axis, where p is the projection of x onto the simplex.

    Its gradient is p minus the one-hot label.

    Args:
      scores: x, of shape (..., classes).
      labels: integers, of that shape without the last axis; the loss is NaN for a label that is no class.
      where: True for the classes that count; the loss is 0 where the label's class or all classes are masked.

    Raises: ValueError if shapes do not fit or the labels are not integers.

    Reference: Martins and Astudillo 2016, arXiv:1602.02068.
    """
    x, labels, mask = classified("multiclass_sparsemax_loss", scores, labels, where)
    largest = jax.lax.stop_gradient(jnp.max(hide(mask, x, -jnp.inf), axis=-1, keepdims=True))
    x = hide(mask, x - jnp.where(jnp.isinf(largest), 0, largest), -jnp.inf)
    own = jnp.take_along_axis(hide(mask, x), jnp.clip(labels, 0, x.shape[-1] - 1)[..., None], -1)[..., 0]
    return of_known_labels(clamped(_conjugate(x) - own, 0), labels, mask, x.shape[-1])


@jax.custom_jvp
def _conjugate(x: jax.Array) -> jax.Array:
    """max over p of Σ p x + ½ (1 - Σ p²)."""
    p = sparsemax(x)
    return jnp.sum(p * jnp.where(p > 0, x, 0), axis=-1) + (1 - jnp.sum(p * p, axis=-1)) / 2


@_conjugate.defjvp
def _conjugate_jvp(primals: tuple, tangents: tuple) -> tuple:
    # p maximizes the sum, so the derivative through p is 0; autodiff would compute it from terms that cancel.
    (x,), (dx,) = primals, tangents
    return _conjugate(x), jnp.sum(sparsemax(x) * dx, axis=-1)


def sparsemax(x: jax.Array) -> jax.Array:
    """The Euclidean projection of x onto the simplex along the last axis; entries of -inf get 0."""
    ordered = -jnp.sort(-x, axis=-1)
    sums = jnp.cumsum(ordered, axis=-1)
    counts = jax.lax.broadcasted_iota(x.dtype, x.shape, x.ndim - 1) + 1
    support = jnp.sum((1 + counts * ordered > sums).astype(jnp.int32), axis=-1, keepdims=True)
    last = jnp.take_along_axis(sums, jnp.maximum(support - 1, 0), -1)
    return jnp.maximum(x - (last - 1) / jnp.maximum(support, 1).astype(x.dtype), 0)
