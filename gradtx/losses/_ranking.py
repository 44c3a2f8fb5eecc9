# SPDX-License-Identifier: Apache-2.0
"""Losses of rankings."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Mask
from gradtx.losses._common import hide, log_softmax, mask_of, masked_mean, same_shape
from gradtx.losses._cross_entropy import label_weighted


@checked
def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: Mask | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: Callable[..., Any] | None = jnp.mean,
) -> Any:
    """-Σ w y log softmax(x) for each list of items, which lies along the last axis.

    Args:
      labels: the relevance of each item, of the shape of the logits.
      where: True for the items that count. A list without any has loss 0 and is left out of the reduction.
      weights: w, of the shape of the logits; None for 1.
      reduce_fn: the function that reduces the losses of the lists to one number, called with `where=` if there is a
        mask; None returns the losses themselves.

    Raises: ValueError if the shapes differ.

    Reference: Cao et al. 2007, doi:10.1145/1273496.1273513.
    """
    given = {"logits": logits, "labels": labels} | ({} if weights is None else {"weights": weights})
    x, y, *rest = same_shape("ranking_softmax_loss", **given)
    mask = mask_of("ranking_softmax_loss", where, x.shape)
    gains = hide(mask, y) * hide(mask, rest[0]) if rest else y
    losses = -jnp.sum(label_weighted(log_softmax(x, -1, mask), gains, mask), axis=-1)
    if reduce_fn is None:
        return losses
    if mask is None:
        return reduce_fn(losses)
    lists = jnp.any(mask, axis=-1)
    return masked_mean(losses, lists) if reduce_fn is jnp.mean else reduce_fn(losses, where=lists)
