# SPDX-License-Identifier: Apache-2.0
"""Wasserstein distances on the line."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._kinds import ArrayLike, Axis, Mask
from gradtx.losses._common import check_shape, checked_axis, hide, mask_of, real, same_shape
from gradtx.numerics._safe import safe_divide


@checked
def wasserstein_1d(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    prediction_weights: ArrayLike | None = None,
    target_weights: ArrayLike | None = None,
    axis: Axis = -1,
    where: Mask | None = None,
    target_where: Mask | None = None,
) -> jax.Array:
    """∫ |F - G|, the area between the distribution functions of two samples that lie along an axis.

    For samples of one size without weights, this is the mean of |x_(k) - y_(k)| in sorted order.

    Args:
      predictions, targets: samples x and y; their sizes may differ along the axis only.
      prediction_weights, target_weights: not negative, of the shapes of the samples; each is divided by its sum.
        None for equal weights.
      where, target_where: True for the predictions, or targets, that count. The loss is 0 if one side has none.

    Raises: ValueError if shapes do not fit.

    Reference: Ramdas et al. 2017, arXiv:1509.02237.
    """
    name = "wasserstein_1d"
    x, y = real(name, "predictions", predictions), real(name, "targets", targets)
    if x.ndim == 0:
        raise ValueError(f"{name}: predictions must have an axis, got a scalar")
    (a,) = checked_axis(name, axis, x.ndim)
    if y.ndim != x.ndim:
        raise ValueError(f"{name}: targets must have the predictions' shape but for the axis, {x.shape}, got {y.shape}")
    check_shape(name, "targets", y, (*x.shape[:a], *y.shape[a : a + 1], *x.shape[a + 1 :]), "the predictions' shape")
    weights = {"prediction_weights": prediction_weights, "target_weights": target_weights}
    given = [real(name, n, w) for n, w in weights.items() if w is not None]
    x, y = widen((x, y), compute_dtype(x, y, *given))
    x, u = _weighted(name, "prediction_weights", x, prediction_weights, "where", where, a)
    y, v = _weighted(name, "target_weights", y, target_weights, "target_where", target_where, a)
    points = jnp.concatenate([x, y], axis=-1)
    order = jnp.argsort(jax.lax.stop_gradient(points), axis=-1)
    mass = jnp.concatenate([_parts(u), -_parts(v)], axis=-1)
    area = _area(*(jnp.take_along_axis(z, order, -1) for z in (points, mass)))
    return jnp.where((jnp.sum(u, axis=-1) > 0) & (jnp.sum(v, axis=-1) > 0), area, 0)


@checked
def histogram_wasserstein_1d(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    positions: ArrayLike | None = None,
    axis: Axis = -1,
    where: Mask | None = None,
) -> jax.Array:
    """Σ |F_k - G_k| (z_(k+1) - z_k) of two histograms along an axis, with their cumulative sums F and G.

    Args:
      predictions, targets: the masses in the bins, not negative; each is divided by its sum.
      positions: the positions z of the bins in increasing order, of shape (bins,); None for 0, 1, 2, ...
      where: True for the bins that count. The loss is 0 if one histogram has no mass.

    Raises: ValueError if shapes do not fit.

    Reference: Hou et al. 2016, arXiv:1611.05916.
    """
    name = "histogram_wasserstein_1d"
    p, t = same_shape(name, predictions=predictions, targets=targets)
    if p.ndim == 0:
        raise ValueError(f"{name}: predictions must have an axis, got a scalar")
    mask = mask_of(name, where, p.shape)
    (a,) = checked_axis(name, axis, p.ndim)
    p, t = (jnp.moveaxis(hide(mask, z), a, -1) for z in (p, t))
    places = jnp.arange(p.shape[-1]) if positions is None else real(name, "positions", positions)
    check_shape(name, "positions", places, p.shape[-1:], "a number for each bin")
    area = _area(jnp.broadcast_to(places.astype(p.dtype), p.shape), _parts(p) - _parts(t))
    return jnp.where((jnp.sum(p, axis=-1) > 0) & (jnp.sum(t, axis=-1) > 0), area, 0)


def _weighted(
    loss: str, name: str, x: jax.Array, weights: Any, mask_name: str, where: Any, axis: int
) -> tuple[jax.Array, jax.Array]:
    """The sample and its weights with the axis last, both 0 where masked."""
    mask = mask_of(loss, where, x.shape, mask_name)
    if weights is None:
        weights = jnp.ones_like(x)
    weights = real(loss, name, weights).astype(x.dtype)
    check_shape(loss, name, weights, x.shape, "the shape of its sample")
    x, weights = (jnp.moveaxis(hide(mask, z), axis, -1) for z in (x, weights))
    return x, weights


def _parts(weights: jax.Array) -> jax.Array:
    return safe_divide(weights, jnp.sum(weights, axis=-1, keepdims=True))


def _area(points: jax.Array, mass: jax.Array) -> jax.Array:
    heights = jnp.abs(jnp.cumsum(mass, axis=-1)[..., :-1])
    return jnp.sum(heights * jnp.diff(points, axis=-1), axis=-1)
