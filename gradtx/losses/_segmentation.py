# SPDX-License-Identifier: Apache-2.0
"""Losses that measure a segmentation by the overlap of regions."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Axes, Mask
from gradtx.core._ranges import NonNegative, Positive
from gradtx.losses._common import (
    Axis,
    check_shape,
    checked_axis,
    hide,
    log_softmax,
    mask_of,
    real,
    same_shape,
    scalar,
)

REDUCTIONS = ("mean", "sum", "none")


@checked
def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: NonNegative = 1.0,
    alpha: NonNegative = 0.5,
    beta: NonNegative = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: Axes | None = None,
    where: Mask | None = None,
) -> jax.Array:
    """1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth) of each class; 0 if this is 0 / 0.

    TP = Σ p y, FP = Σ p (1 - y), FN = Σ (1 - p) y over the pixels.

    Args:
      predictions: logits or probabilities, of shape (batch, ..., classes). With one class, the probability of a logit
        is its sigmoid, as in `binary_dice_loss`; with more, p is their softmax.
      targets: probabilities or one-hot vectors y, of the same shape.
      class_weights: factors of the losses of the classes, of shape (classes,); None for 1. The mean does not divide
        by them.
      smooth: at least 0; above 0, small regions count less.
      alpha, beta: the weights of false positives and false negatives; at least 0.
      apply_softmax: True if predictions are logits, False if they are probabilities.
      reduction: over the classes: "mean", "sum" or "none".
      ignore_background: whether class 0 is left out.
      axis: the axes of the pixels; None for all but the first and the last.
      where: True for the entries that count, of the shape of predictions, or (batch, ..., 1) to choose whole pixels.

    Raises: ValueError if shapes do not fit, for an unknown reduction, or a number outside its range.

    Reference: Milletari et al. 2016, arXiv:1606.04797.
    """
    options = (class_weights, smooth, alpha, beta, apply_softmax, reduction, ignore_background, axis, where)
    return _region_loss("dice_loss", predictions, targets, *options)


@checked
def tversky_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: NonNegative = 1.0,
    alpha: NonNegative = 0.3,
    beta: NonNegative = 0.7,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: Axes | None = None,
    where: Mask | None = None,
) -> jax.Array:
    """`dice_loss` with weights of false positives (alpha) and false negatives (beta) that favor recall.

    Args:
      class_weights, smooth, alpha, beta, apply_softmax, reduction, ignore_background: as in `dice_loss`, and so are
        the rest.

    Reference: Salehi et al. 2017, arXiv:1706.05721.
    """
    options = (class_weights, smooth, alpha, beta, apply_softmax, reduction, ignore_background, axis, where)
    return _region_loss("tversky_loss", predictions, targets, *options)


@checked
def focal_tversky_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: NonNegative = 1.0,
    alpha: NonNegative = 0.3,
    beta: NonNegative = 0.7,
    gamma: Positive = 4 / 3,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: Axes | None = None,
    where: Mask | None = None,
) -> jax.Array:
    """The Tversky loss of each class to the power 1 / gamma.

    Args:
      gamma: positive; above 1, classes that are segmented well still count. A loss of 0 has derivative 0.
      class_weights, smooth, alpha, beta, apply_softmax, reduction, ignore_background: as in `dice_loss`, and so are
        the rest.

    Reference: Abraham and Khan 2019, arXiv:1810.07842.
    """
    options = (class_weights, smooth, alpha, beta, apply_softmax, reduction, ignore_background, axis, where)
    return _region_loss("focal_tversky_loss", predictions, targets, *options, gamma=gamma)


@checked
def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: NonNegative = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
    where: Mask | None = None,
) -> jax.Array:
    """The mean of `dice_loss` over batch and classes, class c weighted by 1 / V_c², where V_c = Σ y over the batch.

    The weights are divided by their mean over all classes. A class that does not occur has the weight of the rarest
    class that does.

    Args:
      smooth, apply_softmax, ignore_background: as in `dice_loss`, and so are the rest.

    Raises: ValueError if shapes do not fit.

    Reference: Sudre et al. 2017, arXiv:1707.03237, for the weights.
    """
    name = "multiclass_generalized_dice_loss"
    (y,) = same_shape(name, targets=targets)
    _check_classes(name, "targets", y)
    y = hide(mask_of(name, where, y.shape), y)
    volumes = jnp.sum(y, axis=tuple(range(y.ndim - 1)))
    present = volumes > 0
    rarest = jnp.min(jnp.where(present, volumes, jnp.inf))
    weights = jnp.where(present, rarest / jnp.where(present, volumes, 1), 1) ** 2
    weights = weights / jnp.mean(weights)
    options = (weights, smooth, 0.5, 0.5, apply_softmax, "mean", ignore_background, None, where)
    return jnp.mean(_region_loss(name, predictions, targets, *options))


@checked
def binary_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: NonNegative = 1.0,
    apply_sigmoid: bool = True,
    where: Mask | None = None,
) -> jax.Array:
    """1 - (TP + smooth) / (TP + FP / 2 + FN / 2 + smooth) for each example.

    Args:
      predictions: logits or probabilities, of shape (batch, ...).
      targets: in [0, 1], of the same shape; one of the two may have an axis of size 1 more, which comes last.
      smooth: at least 0; with 0, the loss of an empty prediction of an empty region is 0.
      apply_sigmoid: True if predictions are logits, False if they are probabilities.
      where: True for the pixels that count.

    Raises: ValueError if the shapes differ.

    See also: `dice_loss`.
    """
    y = real("binary_dice_loss", "targets", targets)
    x = real("binary_dice_loss", "predictions", predictions)
    if y.shape == (*x.shape, 1):
        y = y[..., 0]
    elif x.shape == (*y.shape, 1):
        x = x[..., 0]
    x, y = same_shape("binary_dice_loss", predictions=x, targets=y)
    mask = mask_of("binary_dice_loss", where, x.shape)
    x, y = hide(mask, x), hide(mask, y)
    p = jax.nn.sigmoid(x) if apply_sigmoid else x
    least = scalar(smooth, x)
    return _index_losses(p, y, tuple(range(1, x.ndim)), 0.5, 0.5, least, mask)


def _region_loss(
    loss: str,
    predictions: Any,
    targets: Any,
    class_weights: Any,
    smooth: Any,
    alpha: Any,
    beta: Any,
    apply_softmax: bool,
    reduction: str,
    ignore_background: bool,
    axis: Axis,
    where: Any,
    gamma: Any = None,
) -> jax.Array:
    if reduction not in REDUCTIONS:
        raise ValueError(f"{loss}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    x, y = same_shape(loss, predictions=predictions, targets=targets)
    _check_classes(loss, "predictions", x)
    mask = mask_of(loss, where, x.shape)
    axes = tuple(range(1, x.ndim - 1)) if axis is None else checked_axis(loss, axis, x.ndim)
    if x.ndim - 1 in axes:
        raise ValueError(f"{loss}: axis must not name the last axis, which is that of the classes, got {axis}")
    if ignore_background and x.shape[-1] < 2:
        raise ValueError(f"{loss}: ignore_background leaves no class of {x.shape[-1]}")
    p = _probabilities(x, mask) if apply_softmax else x
    p, y = hide(mask, p), hide(mask, y)
    least, first, second = (scalar(v, x) for v in (smooth, alpha, beta))
    losses = _index_losses(p, y, axes, first, second, least, mask)
    if gamma is not None:
        positive = losses > 0
        power = 1 / scalar(gamma, x)
        losses = jnp.where(positive, jnp.where(positive, losses, 1) ** power, 0)
    if class_weights is not None:
        weights = real(loss, "class_weights", class_weights).astype(losses.dtype)
        check_shape(loss, "class_weights", weights, x.shape[-1:], "an entry for each class")
        losses = losses * jnp.broadcast_to(weights, losses.shape)
    if ignore_background:
        losses = losses[..., 1:]
    reduce = {"mean": jnp.mean, "sum": jnp.sum}.get(reduction)
    return losses if reduce is None else reduce(losses, axis=-1)


def _probabilities(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The softmax over the classes, or the sigmoid of a single one, whose softmax would be 1 for every logit."""
    return jax.nn.sigmoid(x) if x.shape[-1] == 1 else jnp.exp(log_softmax(x, -1, mask))


def _index_losses(
    p: jax.Array, y: jax.Array, axes: tuple, alpha: Any, beta: Any, smooth: jax.Array, mask: jax.Array | None
) -> jax.Array:
    """(alpha FP + beta FN) / (TP + alpha FP + beta FN + smooth): one minus the index, without cancellation."""
    true = jnp.sum(hide(mask, p * y), axis=axes)
    wrong = jnp.sum(hide(mask, alpha * (p * (1 - y)) + beta * ((1 - p) * y)), axis=axes)
    total = true + wrong + smooth
    known = total != 0
    return jnp.where(known, wrong / jnp.where(known, total, 1), 0)


def _check_classes(loss: str, name: str, x: jax.Array) -> None:
    if x.ndim == 0:
        raise ValueError(f"{loss}: {name} must have an axis of classes, got a scalar")
