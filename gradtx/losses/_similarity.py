# SPDX-License-Identifier: Apache-2.0
"""The cosine between vectors."""

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Axes, Mask
from gradtx.core._ranges import NonNegative
from gradtx.losses._common import checked_axis, clamped, hide, mask_of, same_shape, scalar, unit


@checked
def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: NonNegative = 0.0,
    axis: Axes | None = -1,
    where: Mask | None = None,
) -> jax.Array:
    """Σ x y / (‖x‖ ‖y‖) along an axis, where a squared norm is at least epsilon; 0 if one of the vectors is 0.

    Args:
      epsilon: the least squared norm; with 0, vectors of any length but 0 are normalized exactly.
      axis: the axis, or axes, along which the vectors lie.
      where: True for the entries that count.

    Raises: ValueError if the shapes differ.
    """
    x, y = same_shape("cosine_similarity", predictions=predictions, targets=targets)
    axes = checked_axis("cosine_similarity", axis, x.ndim)
    mask = mask_of("cosine_similarity", where, x.shape)
    least = scalar(epsilon, x)
    cosines = jnp.sum(unit(hide(mask, x), axes, least) * unit(hide(mask, y), axes, least), axis=axes)
    return clamped(cosines, -1, 1)


@checked
def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: NonNegative = 0.0,
    axis: Axes | None = -1,
    where: Mask | None = None,
) -> jax.Array:
    """1 - the cosine similarity, in [0, 2]; vectors without an entry that counts have distance 0.

    Args:
      epsilon: the least squared norm, as in `cosine_similarity`.
      axis: the axis, or axes, along which the vectors lie.
      where: True for the entries that count.

    Raises: ValueError if the shapes differ.

    See also: `cosine_similarity`.
    """
    similarity = cosine_similarity(predictions, targets, epsilon=epsilon, axis=axis, where=where)
    shape = jnp.shape(predictions)
    mask = mask_of("cosine_distance", where, shape)
    axes = checked_axis("cosine_distance", axis, len(shape))
    return hide(None if mask is None else jnp.any(mask, axis=axes), 1 - similarity)
