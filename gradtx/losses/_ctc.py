# SPDX-License-Identifier: Apache-2.0
"""Connectionist temporal classification."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike
from gradtx.core._ranges import NonNegativeInt, Real
from gradtx.losses._common import check_classes, check_shape, clamped, integer_labels, log_softmax, real, same_shape


@checked
def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: NonNegativeInt = 0,
    log_epsilon: Real = -1e5,
) -> jax.Array:
    """-log of the probability that the frames, with repetitions and blanks removed, read as the labels.

    Args:
      logits: of shape (batch, frames, classes); padded frames may hold anything.
      logit_paddings: of shape (batch, frames), 1 for padding, which is at the end, and 0 for frames.
      labels: integers, of shape (batch, labels); the loss is NaN if a label is no class, unless it is padding.
      label_paddings: of shape (batch, labels), 1 for padding, which is at the end, and 0 for labels.
      blank_id: the class that stands for no label.
      log_epsilon: the value used for log 0. Where the frames are too few for the labels, the loss is about
        -log_epsilon and the gradient finite.

    Returns: an array of shape (batch,).

    Raises: ValueError if shapes do not fit, the labels are not integers, or the blank is no class.

    Reference: Graves et al. 2006, doi:10.1145/1143844.1143891.
    """
    losses, _, _ = ctc_loss_with_forward_probs(
        logits, logit_paddings, labels, label_paddings, blank_id=blank_id, log_epsilon=log_epsilon
    )
    return losses


@checked
def ctc_loss_with_forward_probs(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: NonNegativeInt = 0,
    log_epsilon: Real = -1e5,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`ctc_loss` and the logarithms of its forward probabilities.

    Args:
      logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon: as in `ctc_loss`.

    Returns: (losses, phi, emit). `phi[t, b, n]`, of shape (frames, batch, labels + 1), is the log-probability that
    frames 0, ..., t read as the first n labels and frame t is blank; in the last frame, blank or not.
    `emit[t, b, n]`, of shape (frames, batch, labels), is the log-probability that they read as the first n + 1 labels
    and frame t is no blank. Padded frames repeat the values of the frame before.
    """
    name = "ctc_loss"
    (x,) = same_shape(name, logits=logits)
    if x.ndim != 3:
        raise ValueError(f"{name}: logits must have the shape (batch, frames, classes), got {x.shape}")
    labels_shape = jnp.shape(labels)
    if len(labels_shape) != 2 or labels_shape[0] != x.shape[0]:
        raise ValueError(f"{name}: labels must have the shape ({x.shape[0]}, labels), got {labels_shape}")
    labels = integer_labels(name, labels, labels_shape, "its own shape")
    check_classes(name, "logits", x.shape[2], "the blank must have another beside it")
    if not 0 <= blank_id < x.shape[2]:
        raise ValueError(f"{name}: blank_id must be a class, in [0, {x.shape[2]}), got {blank_id}")
    padded = _padding(name, "logit_paddings", logit_paddings, x.shape[:2], "the frames' shape")
    unlabeled = _padding(name, "label_paddings", label_paddings, labels.shape, "the shape of labels")

    x = jnp.where(padded[..., None], 0, x)
    # A class of probability 0 would have the logarithm -inf, and the difference of two such logarithms is NaN.
    log_p = jnp.maximum(log_softmax(x, -1), log_epsilon)
    known = (labels >= 0) & (labels < x.shape[2]) | unlabeled
    labels = jnp.where(known & ~unlabeled, labels, 0)
    of_blank = log_p[:, :, blank_id, None]
    of_labels = jnp.take_along_axis(log_p, jnp.broadcast_to(labels[:, None], (*x.shape[:2], labels.shape[1])), 2)

    phi, emit, last = _forward(labels, of_blank, of_labels, padded, log_epsilon)
    if len(phi):
        phi = phi.at[-1].set(last)
    count = jnp.sum((~unlabeled).astype(jnp.int32), axis=1, keepdims=True)
    losses = clamped(-jnp.take_along_axis(last, count, 1)[:, 0], 0)
    return jnp.where(jnp.all(known, axis=1), losses, jnp.nan), phi, emit


def _forward(
    labels: jax.Array, of_blank: jax.Array, of_labels: jax.Array, padded: jax.Array, log_zero: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """phi and emit of all frames, and phi after the last frame, which need not be blank."""
    batch, size = labels.shape
    dtype = of_blank.dtype
    nothing = jnp.full((batch, 1), log_zero, dtype)
    # Between two equal labels there must be a blank.
    repeated = jnp.concatenate([jnp.zeros((batch, 1), bool), labels[:, 1:] == labels[:, :-1]], axis=1)[:, :size]

    def frame(carry: tuple, inputs: tuple) -> tuple:
        phi, emit = carry
        blank, label, skip = inputs
        before = jnp.concatenate([nothing, emit], axis=1)  # paths that end with label n - 1
        entering = jnp.logaddexp(phi[:, :-1], jnp.where(repeated, log_zero, before[:, :-1]))
        new_emit = jnp.logaddexp(entering, emit) + label
        new_phi = jnp.logaddexp(phi, before) + blank
        carry = jnp.where(skip[:, None], phi, new_phi), jnp.where(skip[:, None], emit, new_emit)
        return carry, carry

    start = jnp.concatenate([jnp.zeros((batch, 1), dtype), jnp.full((batch, size), log_zero, dtype)], axis=1)
    frames = tuple(jnp.moveaxis(a, 1, 0) for a in (of_blank, of_labels, padded))
    (phi, emit), (phis, emits) = jax.lax.scan(frame, (start, jnp.full((batch, size), log_zero, dtype)), frames)
    return phis, emits, jnp.logaddexp(phi, jnp.concatenate([nothing, emit], axis=1))


def _padding(loss: str, name: str, x: Any, shape: tuple[int, ...], what: str) -> jax.Array:
    x = real(loss, name, x)
    check_shape(loss, name, x, shape, what)
    return x > 0
