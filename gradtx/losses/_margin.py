# SPDX-License-Identifier: Apache-2.0
"""Hinge and perceptron losses."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Mask
from gradtx.losses._common import check_classes, elementwise, hide, integer_labels, mask_of, same_shape


@checked
def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike, *, where: Mask | None = None) -> jax.Array:
    """max(0, 1 - x y), entry by entry.

    Args:
      predictor_outputs: real scores x, positive for the class 1.
      targets: y, -1 or 1, of the same shape.
      where: True for the entries that count; the loss is 0 elsewhere.

    Raises: ValueError if the shapes differ.
    """
    return elementwise(
        "hinge_loss",
        lambda x, y: jnp.maximum(1 - x * y, 0),
        where,
        predictor_outputs=predictor_outputs,
        targets=targets,
    )


@checked
def perceptron_loss(predictor_outputs: ArrayLike, targets: ArrayLike, *, where: Mask | None = None) -> jax.Array:
    """max(0, -x y), entry by entry.

    Args:
      predictor_outputs: real scores x, positive for the class 1.
      targets: y, -1 or 1, of the same shape.
      where: True for the entries that count; the loss is 0 elsewhere.

    Raises: ValueError if the shapes differ.

    Reference: Rosenblatt 1958, doi:10.1037/h0042519.
    """
    return elementwise(
        "perceptron_loss",
        lambda x, y: jnp.maximum(-x * y, 0),
        where,
        predictor_outputs=predictor_outputs,
        targets=targets,
    )


@checked
def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike, *, where: Mask | None = None) -> jax.Array:
    """max over j of (x[j] + [j is not the label]) - x[label], along the last axis.

    Args:
      scores: x, of shape (..., classes).
      labels: integers, of that shape without the last axis; the loss is NaN for a label that is no class.
      where: True for the classes that count; the loss is 0 where the label's class or all classes are masked.

    Raises: ValueError if shapes do not fit or the labels are not integers.

    Reference: Crammer and Singer 2001, https://jmlr.org/papers/v2/crammer01a.html.
    """
    return _multiclass("multiclass_hinge_loss", scores, labels, where, 1.0)


@checked
def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike, *, where: Mask | None = None) -> jax.Array:
    """max(x) - x[label], along the last axis.

    Args:
      scores: x, of shape (..., classes).
      labels: integers, of that shape without the last axis; the loss is NaN for a label that is no class.
      where: True for the classes that count; the loss is 0 where the label's class or all classes are masked.

    Raises: ValueError if shapes do not fit or the labels are not integers.

    Reference: Collins 2002, doi:10.3115/1118693.1118694.
    """
    return _multiclass("multiclass_perceptron_loss", scores, labels, where, 0.0)


def _multiclass(loss: str, scores: Any, labels: Any, where: Any, margin: float) -> jax.Array:
    x, labels, mask = classified(loss, scores, labels, where)
    index = jnp.clip(labels, 0, x.shape[-1] - 1)[..., None]
    own = jnp.take_along_axis(x, index, -1)
    others = jax.lax.broadcasted_iota(labels.dtype, x.shape, x.ndim - 1) != index
    ahead = jnp.where(jnp.isneginf(x) & others, -jnp.inf, jnp.where(others, x - own + margin, 0))
    losses = jnp.max(hide(mask, ahead, -jnp.inf), axis=-1)
    return of_known_labels(losses, labels, mask, x.shape[-1])


def classified(loss: str, scores: Any, labels: Any, where: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The scores with 0 where masked, the labels as integers, and the mask."""
    (x,) = same_shape(loss, scores=scores)
    if x.ndim == 0:
        raise ValueError(f"{loss}: scores must have an axis of classes, got a scalar")
    check_classes(loss, "scores", x.shape[-1], "give a score to each of two classes, or use a loss of binary labels")
    labels = integer_labels(loss, labels, x.shape[:-1], "the shape of scores without the last axis")
    mask = mask_of(loss, where, x.shape, classes=(x.ndim - 1,))
    return hide(mask, x), labels, mask


def of_known_labels(losses: jax.Array, labels: jax.Array, mask: jax.Array | None, classes: int) -> jax.Array:
    """The losses, but NaN for labels that are no class and 0 where the label's class or all classes are masked."""
    known = (labels >= 0) & (labels < classes)
    losses = jnp.where(known, losses, jnp.nan)
    if mask is None:
        return losses
    index = jnp.clip(labels, 0, classes - 1)[..., None]
    counts = jnp.where(known, jnp.take_along_axis(mask, index, -1)[..., 0], True)
    return hide(jnp.any(mask, axis=-1) & counts, losses)
