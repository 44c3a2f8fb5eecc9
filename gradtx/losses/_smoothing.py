# SPDX-License-Identifier: Apache-2.0
"""Smoothed labels."""

import math

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Axes, Mask
from gradtx.core._ranges import Fraction
from gradtx.losses._common import (
    check_classes,
    checked_axis,
    elementwise,
    hide,
    mask_of,
    same_shape,
    scalar,
)


@checked
def smooth_labels(
    labels: ArrayLike,
    alpha: Fraction,
    *,
    axis: Axes | None = -1,
    where: Mask | None = None,
    prior: ArrayLike | None = None,
) -> jax.Array:
    """(1 - alpha) labels + alpha prior, where the prior is 1 / n for n classes unless one is given.

    Args:
      labels: probabilities or one-hot vectors.
      alpha: the weight of the prior, in [0, 1].
      axis: the axis of the classes, or several axes.
      where: True for the classes that count; masked classes get 0.
      prior: probabilities of the classes, of the shape of the labels, for example their frequencies in the training
        set or the predictions of a teacher; None for equal probabilities of the classes that count.

    Raises: ValueError if the shapes differ or `alpha` lies outside [0, 1].

    Reference: Szegedy et al. 2016, arXiv:1512.00567; for other priors, Pereyra et al. 2017, arXiv:1701.06548.
    """
    given = {"labels": labels} if prior is None else {"labels": labels, "prior": prior}
    values = same_shape("smooth_labels", **given)
    y = values[0]
    mask = mask_of("smooth_labels", where, y.shape)
    axes = checked_axis("smooth_labels", axis, y.ndim)
    weight = scalar(alpha, y)
    if prior is None:
        check_classes("smooth_labels", "labels", math.prod(y.shape[a] for a in axes), "use smooth_binary_labels")
        classes = jnp.sum(hide(mask, jnp.ones_like(y)), axis=axes, keepdims=True)
        others = jnp.broadcast_to(1 / jnp.maximum(classes, 1), y.shape)
    else:
        others = hide(mask, values[1])
    return hide(mask, (1 - weight) * hide(mask, y) + weight * others)


@checked
def smooth_binary_labels(labels: ArrayLike, alpha: Fraction, *, where: Mask | None = None) -> jax.Array:
    """(1 - alpha) label + alpha / 2, for binary labels that do not exclude one another.

    Args:
      labels: probabilities, each of its own class.
      alpha: the weight of 1/2, in [0, 1].
      where: True for the entries that count; the rest become 0.

    Raises: ValueError if `alpha` lies outside [0, 1].

    See also: `smooth_labels`.
    """

    def smooth(y: jax.Array) -> jax.Array:
        weight = scalar(alpha, y)
        return (1 - weight) * y + weight / 2

    return elementwise("smooth_binary_labels", smooth, where, labels=labels)
