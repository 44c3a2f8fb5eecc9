# SPDX-License-Identifier: Apache-2.0
"""Lovász losses: piecewise linear surrogates of the Jaccard index (intersection over union)."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Axes, Mask
from gradtx.losses._common import (
    check_classes,
    checked_axis,
    hide,
    integer_labels,
    log_softmax,
    mask_of,
    masked_mean,
    same_shape,
)

CLASSES = ("present", "all")


@checked
def lovasz_hinge(
    logits: ArrayLike, labels: ArrayLike, *, axis: Axes | None = None, where: Mask | None = None
) -> jax.Array:
    """Σ max(0, e_(k)) (J_k - J_(k-1)), with errors e = 1 - x (2 y - 1) in falling order and J_k the Jaccard loss if
    the first k are wrong.

    Args:
      logits: of shape (batch, ...).
      labels: 0 or 1, of the same shape.
      axis: the axes of the pixels; None for all but the first, so that each image has a loss.
      where: True for the pixels that count; an image without any has loss 0.

    Raises: ValueError if the shapes differ.

    Reference: Berman et al. 2018, arXiv:1705.08790.
    """
    x, y = same_shape("lovasz_hinge", logits=logits, labels=labels)
    axes = tuple(range(1, x.ndim)) if axis is None else checked_axis("lovasz_hinge", axis, x.ndim)
    mask = mask_of("lovasz_hinge", where, x.shape)
    x, y = hide(mask, x), hide(mask, y)
    errors = jnp.where(y > 0, 1 - x, 1 + x)
    return _extension(_pixels_last(errors, axes), _pixels_last(y > 0, axes), _pixels_last(mask, axes))


@checked
def lovasz_softmax(
    predictions: ArrayLike,
    labels: ArrayLike,
    *,
    apply_softmax: bool = True,
    classes: str = "present",
    axis: Axes | None = None,
    where: Mask | None = None,
) -> jax.Array:
    """The mean over classes c of Σ e_(k) (J_k - J_(k-1)), with errors e = |[label = c] - p_c| in falling order.

    Args:
      predictions: logits or probabilities, of shape (batch, ..., classes).
      labels: integers, of that shape without the last axis; a pixel whose label is no class makes the loss NaN
        unless it is masked.
      apply_softmax: True if predictions are logits, False if they are probabilities.
      classes: the classes of the mean: "present" for those that occur in the labels of the image, or "all".
      axis: the axes of the pixels; None for all but the first and the last, so that each image has a loss.
      where: True for the pixels that count, of the shape of the labels.

    Raises: ValueError if shapes do not fit or the labels are not integers.

    Reference: Berman et al. 2018, arXiv:1705.08790.
    """
    if classes not in CLASSES:
        raise ValueError(f"lovasz_softmax: classes must be one of {', '.join(CLASSES)}, got {classes!r}")
    (x,) = same_shape("lovasz_softmax", predictions=predictions)
    if x.ndim < 2:
        raise ValueError(f"lovasz_softmax: predictions must have the shape (batch, ..., classes), got {x.shape}")
    labels = integer_labels("lovasz_softmax", labels, x.shape[:-1], "the shape of predictions without the last axis")
    mask = mask_of("lovasz_softmax", where, labels.shape)
    axes = tuple(range(1, labels.ndim)) if axis is None else checked_axis("lovasz_softmax", axis, labels.ndim)
    if apply_softmax:
        check_classes("lovasz_softmax", "predictions", x.shape[-1], "for one region use lovasz_hinge")
    x = x if mask is None else hide(mask[..., None], x)
    p = jnp.exp(log_softmax(x, -1)) if apply_softmax else x
    known = (labels >= 0) & (labels < x.shape[-1])
    labels = hide(mask, labels, -1)
    # The axis of the classes comes first: each class is a binary segmentation.
    number = jax.lax.broadcasted_iota(labels.dtype, (x.shape[-1], *labels.shape), 0)
    own = number == labels[None]
    p = jnp.moveaxis(p, -1, 0)
    axes = tuple(a + 1 for a in axes)
    masks = None if mask is None else jnp.broadcast_to(mask, own.shape)
    errors = jnp.where(own, 1 - p, p)
    losses = _extension(_pixels_last(errors, axes), _pixels_last(own, axes), _pixels_last(masks, axes))
    counted = jnp.any(own, axis=axes) if classes == "present" else None
    valid = jnp.all(hide(mask, known, True), axis=tuple(a - 1 for a in axes))
    return jnp.where(valid, masked_mean(losses, counted, (0,)), jnp.nan)


def _pixels_last(x: Any, axes: tuple) -> Any:
    """x with the axes of the pixels merged into one, which comes last; None for None."""
    if x is None:
        return None
    rest = [a for a in range(x.ndim) if a not in axes]
    return jnp.transpose(x, (*rest, *axes)).reshape(*(x.shape[a] for a in rest), -1)


def _extension(errors: jax.Array, positive: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Σ max(0, e_(k)) (J_k - J_(k-1)) along the last axis; masked pixels are sorted last and have weight 0."""
    order = jnp.argsort(-jax.lax.stop_gradient(hide(mask, errors, -jnp.inf)), axis=-1)
    errors, positive = (jnp.take_along_axis(a, order, -1) for a in (hide(mask, errors), positive))
    hits = positive.astype(jnp.int32)
    total = jnp.sum(hits, axis=-1, keepdims=True, dtype=jnp.int32)
    left = total - jnp.cumsum(hits, axis=-1)
    union = total + jnp.cumsum(1 - hits, axis=-1)
    jaccard = 1 - left.astype(errors.dtype) / union.astype(errors.dtype)
    steps = jnp.diff(jaccard, axis=-1, prepend=jnp.zeros_like(jaccard[..., :1]))
    if mask is not None:
        steps = hide(jnp.take_along_axis(mask, order, -1), steps)
    return jnp.sum(jnp.maximum(errors, 0) * steps, axis=-1)
