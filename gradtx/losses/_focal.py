# SPDX-License-Identifier: Apache-2.0
"""The focal loss: a cross-entropy with small weights on entries that are classified well."""

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Mask
from gradtx.core._ranges import Fraction, NonNegative
from gradtx.losses._common import elementwise, scalar
from gradtx.losses._cross_entropy import binary_cross_entropy


@checked
def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: Fraction | None = None,
    gamma: NonNegative = 2.0,
    where: Mask | None = None,
) -> jax.Array:
    """a q^gamma CE(x, y), entry by entry, with q = y σ(-x) + (1 - y) σ(x) and a = alpha y + (1 - alpha)(1 - y).

    Args:
      labels: probabilities, of the shape of the logits.
      alpha: the weight of the positive class, in [0, 1]; None for no weights.
      gamma: the exponent, at least 0; with 0 the loss is the cross-entropy.
      where: True for the entries that count; the loss is 0 elsewhere.

    Raises: ValueError if the shapes differ or a number lies outside its range.

    Reference: Lin et al. 2017, arXiv:1708.02002.
    """

    def loss(x: jax.Array, y: jax.Array) -> jax.Array:
        power = scalar(gamma, x)
        wrong = y * jax.nn.sigmoid(-x) + (1 - y) * jax.nn.sigmoid(x)
        positive = wrong > 0
        # A power below 1 has an infinite derivative at 0, which q reaches by underflow.
        focus = jnp.where(positive, jnp.where(positive, wrong, 1) ** power, 0)
        losses = focus * binary_cross_entropy(x, y)
        if alpha is None:
            return losses
        weight = scalar(alpha, x)
        return (weight * y + (1 - weight) * (1 - y)) * losses

    return elementwise("sigmoid_focal_loss", loss, where, logits=logits, labels=labels)
