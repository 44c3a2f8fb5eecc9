# SPDX-License-Identifier: Apache-2.0
"""Sums and means of losses, weighted and masked."""

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._kinds import ArrayLike, Axes, Mask
from gradtx.losses._common import check_shape, checked_axis, hide, mask_of, real, same_shape
from gradtx.numerics._safe import safe_divide

REDUCTIONS = ("none", "sum", "mean")


@checked
def reduce_loss(
    losses: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    where: Mask | None = None,
    axis: Axes | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """The weighted mean Σ w l / Σ w of losses l, their sum Σ w l, or w l, in at least float32; 0 where none count.

    Args:
      losses: l, an array of losses.
      weights: w, of the shape of `losses`; None for 1.
      where: True for the losses that count. Masked losses contribute nothing, even if they are NaN.
      axis: the axes to reduce; None for all.
      reduction: "mean", "sum" or "none".

    Raises: ValueError for a weight or mask of another shape, or an unknown reduction.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduce_loss: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    (values,) = same_shape("reduce_loss", losses=losses)
    mask = mask_of("reduce_loss", where, values.shape)
    factors = jnp.ones_like(values)
    if weights is not None:
        given = real("reduce_loss", "weights", weights)
        check_shape("reduce_loss", "weights", given, values.shape, "the shape of losses")
        values, factors = widen((values, given), compute_dtype(values, given))
    axes = checked_axis("reduce_loss", axis, values.ndim)
    factors = hide(mask, factors)
    weighted = factors * hide(mask, values)
    if reduction == "none":
        return weighted
    total = jnp.sum(weighted, axis=axes)
    return total if reduction == "sum" else safe_divide(total, jnp.sum(factors, axis=axes))
