# SPDX-License-Identifier: Apache-2.0
"""Cross-entropies of logits with probabilities or class numbers."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Axes, Mask
from gradtx.core._ranges import Fraction, NonNegative, Numbers
from gradtx.losses._common import (
    check_classes,
    checked_axis,
    elementwise,
    hide,
    integer_labels,
    is_zero,
    log_softmax,
    logsumexp,
    mask_of,
    masked_mean,
    real,
    safe_product,
    same_shape,
    scalar,
    shifted_exponents,
)
from gradtx.losses._smoothing import smooth_binary_labels, smooth_labels


@checked
def sigmoid_binary_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, label_smoothing: Fraction = 0.0, where: Mask | None = None
) -> jax.Array:
    """-y log σ(x) - (1 - y) log σ(-x), entry by entry; exact for infinite logits.

    Args:
      labels: probabilities, of the shape of the logits.
      label_smoothing: `alpha` of `smooth_binary_labels`, in [0, 1].
      where: True for the entries that count; the loss is 0 elsewhere.

    Raises: ValueError if the shapes differ.
    """

    def loss(x: jax.Array, y: jax.Array) -> jax.Array:
        if not is_zero(label_smoothing):
            y = smooth_binary_labels(y, label_smoothing)
        return binary_cross_entropy(x, y)

    return elementwise("sigmoid_binary_cross_entropy", loss, where, logits=logits, labels=labels)


def binary_cross_entropy(x: jax.Array, y: jax.Array) -> jax.Array:
    """`sigmoid_binary_cross_entropy` of arrays that are already checked."""
    return -safe_product(y, jax.nn.log_sigmoid(x)) - safe_product(1 - y, jax.nn.log_sigmoid(-x))


@checked
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axes | None = -1,
    where: Mask | None = None,
    *,
    label_smoothing: Fraction = 0.0,
    z_loss_weight: NonNegative = 0.0,
) -> jax.Array:
    """-Σ y log softmax(x) along an axis. A class with logit -inf and label 0 adds nothing, as 0 log 0 is 0.

    Args:
      labels: probabilities, of the shape of the logits.
      axis: the axis of the classes, or several axes.
      where: True for the classes that count, in the softmax too. An example without any has loss 0. Without the axis
        of the classes, the examples that count.
      label_smoothing: `alpha` of `smooth_labels`, in [0, 1].
      z_loss_weight: the factor with which log(Σ exp(x))² is added to the loss; see `z_loss`.

    Raises: ValueError if the shapes differ.
    """
    x, y = same_shape("softmax_cross_entropy", logits=logits, labels=labels)
    axes = checked_axis("softmax_cross_entropy", axis, x.ndim)
    _check_logits("softmax_cross_entropy", x, axes)
    mask = mask_of("softmax_cross_entropy", where, x.shape, classes=axes)
    if not is_zero(label_smoothing):
        y = smooth_labels(y, label_smoothing, axis=axes, where=mask)
    losses = -jnp.sum(label_weighted(log_softmax(x, axes, mask), y, mask), axis=axes)
    return losses + _z_term("softmax_cross_entropy", x, axes, mask, z_loss_weight)


@checked
def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """-Σ y log softmax(x) along the last axis: another name of `softmax_cross_entropy`, which is safe by itself.

    Raises: ValueError if the shapes differ.
    """
    return softmax_cross_entropy(logits, labels)


@checked
def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axes = -1,
    where: Mask | None = None,
    *,
    label_smoothing: Fraction = 0.0,
    z_loss_weight: NonNegative = 0.0,
) -> jax.Array:
    """log(Σ exp(x)) - x[label] along an axis: `softmax_cross_entropy` of one-hot labels, without making them.

    Args:
      labels: integers, of the shape of the logits without the axis. The loss is NaN for a label that is no class,
        unless the example is masked.
      axis: the axis of the classes, or several axes, whose entries are numbered in row-major order of the axes named.
      where: True for the classes that count. Of the labels' shape, it leaves out whole examples, whose loss is then
        0: `where=labels != -100`.
      label_smoothing: `alpha` of `smooth_labels`, in [0, 1].
      z_loss_weight: the factor with which log(Σ exp(x))² is added to the loss; see `z_loss`.

    Raises: ValueError if shapes do not fit or the labels are not integers.
    """
    name = "softmax_cross_entropy_with_integer_labels"
    raw = real(name, "logits", logits)
    (x,) = same_shape(name, logits=raw)
    axes = checked_axis(name, axis, x.ndim)
    _check_logits(name, x, axes)
    shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    labels = integer_labels(name, labels, shape, "the shape of logits without the axis")
    mask = mask_of(name, where, x.shape, classes=axes)
    if len(axes) != 1:
        raw, x, mask = _merged(raw, axes), _merged(x, axes), None if mask is None else _merged(mask, axes)
        axes = (x.ndim - 1,)
    (axis,) = axes
    shifted, log_total, largest = shifted_exponents(x, axis, mask)
    index = jnp.expand_dims(jnp.clip(labels, 0, x.shape[axis] - 1), axis)
    # Taken from the logits as given, so that no float32 copy of all of them is kept for this.
    chosen = jnp.take_along_axis(raw, index, axis).astype(x.dtype)
    counts = None if mask is None else jnp.take_along_axis(mask, index, axis)
    chosen = hide(counts, chosen - largest, log_total)
    if is_zero(label_smoothing):
        losses = log_total - chosen
    else:
        alpha = scalar(label_smoothing, x)
        others = masked_mean(shifted, mask, (axis,))
        losses = safe_product(1 - alpha, log_total - chosen)
        losses = losses + safe_product(alpha, log_total - jnp.expand_dims(others, axis))
    losses = jnp.squeeze(losses, axis)
    losses = jnp.where((labels >= 0) & (labels < x.shape[axis]), losses, jnp.nan)
    losses = hide(None if mask is None else jnp.any(mask, axis=axis), losses)
    return losses + _z_term(name, x, axes, mask, z_loss_weight)


@checked
def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: Numbers = 2.0,
    axis: Axes | None = -1,
    where: Mask | None = None,
) -> jax.Array:
    """Σ y (epsilon (1 - p) - log p) along an axis, of the probabilities p = softmax(x).

    Args:
      labels: probabilities, of the shape of the logits.
      epsilon: the factor of the first term of the cross-entropy's series in 1 - p.
      axis: the axis of the classes, or several axes.
      where: True for the classes that count, in the softmax too; without the axis of the classes, for the examples.

    Raises: ValueError if the shapes differ.

    Reference: Leng et al. 2022, arXiv:2204.12511.
    """
    x, y = same_shape("poly_loss_cross_entropy", logits=logits, labels=labels)
    axes = checked_axis("poly_loss_cross_entropy", axis, x.ndim)
    _check_logits("poly_loss_cross_entropy", x, axes)
    mask = mask_of("poly_loss_cross_entropy", where, x.shape, classes=axes)
    log_p = log_softmax(x, axes, mask)
    terms = label_weighted(log_p, y, mask) + epsilon * hide(mask, y) * jnp.expm1(hide(mask, log_p))
    return -jnp.sum(hide(mask, terms), axis=axes)


@checked
def z_loss(logits: ArrayLike, axis: Axes | None = -1, where: Mask | None = None) -> jax.Array:
    """log(Σ exp(x))² along an axis: keeps the logits of a language model from drifting.

    A common factor is 1e-4; `softmax_cross_entropy(..., z_loss_weight=1e-4)` adds this term to its loss.

    Args:
      axis: the axis of the classes, or several axes.
      where: True for the classes that count. An example without any has loss 0. Without the axis of the classes, the
        examples that count.

    Reference: Chowdhery et al. 2022, arXiv:2204.02311, section 5.
    """
    (x,) = same_shape("z_loss", logits=logits)
    axes = checked_axis("z_loss", axis, x.ndim)
    return _squared_log_z(x, axes, mask_of("z_loss", where, x.shape, classes=axes))


def label_weighted(log_p: jax.Array, labels: jax.Array, mask: jax.Array | None) -> jax.Array:
    """labels * log_p; 0 where masked."""
    return hide(mask, safe_product(hide(mask, labels), hide(mask, log_p)))


def _check_logits(loss: str, x: jax.Array, axes: tuple[int, ...]) -> None:
    check_classes(loss, "logits", math.prod(x.shape[a] for a in axes), "for yes or no use sigmoid_binary_cross_entropy")


def _merged(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """x with these axes merged into one, in their order, which comes last."""
    x = jnp.moveaxis(x, axes, range(-len(axes), 0))
    return x.reshape(*x.shape[: x.ndim - len(axes)], -1)


def _z_term(loss: str, x: jax.Array, axes: tuple, mask: jax.Array | None, weight: Any) -> jax.Array | float:
    if is_zero(weight):
        return 0.0
    return scalar(weight, x) * _squared_log_z(x, axes, mask)


def _squared_log_z(x: jax.Array, axes: tuple, mask: jax.Array | None) -> jax.Array:
    return hide(None if mask is None else jnp.any(mask, axis=axes), logsumexp(x, axes, mask)) ** 2
