# SPDX-License-Identifier: Apache-2.0
"""Contrastive losses of embeddings."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._kinds import ArrayLike, Axes, Mask
from gradtx.core._ranges import NonNegative, Numbers, Positive, Range, Real
from gradtx.losses._common import (
    check_shape,
    checked_axis,
    hide,
    log_softmax,
    logsumexp,
    mask_of,
    p_norm,
    real,
    same_shape,
    scalar,
    unit,
)

Degree = Annotated[Any, Range(low=1.0, example=2.0)]


@checked
def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: Axes | None = -1,
    norm_degree: Degree = 2,
    margin: Numbers = 1.0,
    eps: NonNegative = 1e-6,
    *,
    where: Mask | None = None,
) -> jax.Array:
    """max(0, d(a, p) - d(a, n) + margin), with the distance d(x, y) = (Σ |x - y|^k + eps)^(1/k) along an axis.

    Args:
      anchors, positives, negatives: a, p and n, of one shape.
      axis: the axis, or axes, along which the vectors lie.
      norm_degree: k, at least 1.
      margin: how much farther than the positive the negative must be for the loss to be 0.
      eps: may be 0; a distance of 0 then has derivative 0.
      where: True for the entries that count; a triplet without any has loss 0.

    Raises: ValueError if the shapes differ or a number lies outside its range.

    Reference: Schroff et al. 2015, arXiv:1503.03832.
    """
    name = "triplet_margin_loss"
    a, p, n = same_shape(name, anchors=anchors, positives=positives, negatives=negatives)
    axes = checked_axis(name, axis, a.ndim)
    mask = mask_of(name, where, a.shape)
    degree, least = scalar(norm_degree, a), scalar(eps, a)
    a, p, n = (hide(mask, x) for x in (a, p, n))
    losses = p_norm(a - p, degree, axes, least) - p_norm(a - n, degree, axes, least) + margin
    return hide(None if mask is None else jnp.any(mask, axis=axes), jnp.maximum(losses, 0))


@checked
def ntxent(
    embeddings: ArrayLike, labels: ArrayLike, temperature: Positive = 0.07, *, where: Mask | None = None
) -> jax.Array:
    """The mean of log(1 + Σ_k exp(s_ik - s_ij)) over pairs (i, j) with equal labels; k runs over the other labels.

    s are the cosine similarities divided by the temperature. The loss is 0 if no two examples share a label.

    Args:
      embeddings: of shape (batch, features).
      labels: of shape (batch,); examples with equal labels belong together.
      temperature: the divisor of the similarities; positive.
      where: of shape (batch,), True for the examples that count.

    Raises: ValueError if shapes do not fit or the temperature is not positive.

    Reference: Chen et al. 2020, arXiv:2002.05709.
    """
    x = _rows("ntxent", "embeddings", same_shape("ntxent", embeddings=embeddings)[0])
    labels = real("ntxent", "labels", labels)
    check_shape("ntxent", "labels", labels, x.shape[:1], "one entry for each embedding")
    mask = mask_of("ntxent", where, x.shape[:1])
    x = _ready(x, mask, True)
    cosines = _products(x, x) / scalar(temperature, x)
    counts = _pairs(mask, len(labels))
    alike = labels[:, None] == labels[None, :]
    others = logsumexp(cosines, (1,), counts & ~alike)
    pairs = counts & alike & ~jnp.eye(len(labels), dtype=bool)
    losses = jax.nn.softplus(others[:, None] - cosines)
    total = jnp.sum(jnp.where(pairs, losses, 0))
    return total / jnp.maximum(jnp.sum(pairs.astype(x.dtype)), 1)


@checked
def info_nce_loss(
    queries: ArrayLike,
    keys: ArrayLike,
    temperature: Positive = 0.07,
    *,
    negatives: ArrayLike | None = None,
    symmetric: bool = False,
    normalize: bool = True,
    where: Mask | None = None,
) -> jax.Array:
    """-log softmax_j(s_ij)[i] for each query i, where s are similarities of queries and keys over the temperature.

    Args:
      queries, keys: of shape (batch, features); key i belongs to query i, the other keys are its negatives.
      temperature: the divisor of the similarities; positive.
      negatives: of shape (n, features), used instead of the other keys, for example from a queue; None for the
        other keys.
      symmetric: whether to return the mean of this loss and the loss with queries and keys exchanged, as in CLIP.
      normalize: whether vectors are divided by their norms.
      where: of shape (batch,), True for the pairs that count, as queries and as negatives; the loss is 0 elsewhere.

    Returns: an array of shape (batch,).

    Raises: ValueError if shapes do not fit, the temperature is not positive, or `symmetric` comes with `negatives`.

    Reference: van den Oord et al. 2018, arXiv:1807.03748; symmetric: Radford et al. 2021, arXiv:2103.00020.
    """
    q, k = same_shape("info_nce_loss", queries=queries, keys=keys)
    _rows("info_nce_loss", "queries", q)
    mask = mask_of("info_nce_loss", where, q.shape[:1])
    if negatives is None:
        q, k = _ready(q, mask, normalize), _ready(k, mask, normalize)
        logits = _products(q, k) / scalar(temperature, q)
        losses = -jnp.diagonal(log_softmax(logits, 1, _pairs(mask, len(q))))
        if symmetric:
            losses = (losses - jnp.diagonal(log_softmax(logits, 0, _pairs(mask, len(q))))) / 2
        return hide(mask, losses)
    if symmetric:
        raise ValueError("info_nce_loss: symmetric has no meaning with negatives of the queries only")
    n = real("info_nce_loss", "negatives", negatives)
    check_shape("info_nce_loss", "negatives", n, (*n.shape[:1], q.shape[1]), "rows like the queries")
    q, k, n = widen((q, k, n), compute_dtype(q, k, n))
    divisor = scalar(temperature, q)
    q, k, n = _ready(q, mask, normalize), _ready(k, mask, normalize), _ready(n, None, normalize)
    others = logsumexp(_products(q, n) / divisor, (1,))
    return hide(mask, jax.nn.softplus(others - jnp.sum(q * k, axis=1) / divisor))


@checked
def siglip_loss(
    images: ArrayLike,
    texts: ArrayLike,
    logit_scale: Real = 10.0,
    logit_bias: Real = -10.0,
    *,
    normalize: bool = True,
    where: Mask | None = None,
) -> jax.Array:
    """-Σ_j log σ(y_ij (logit_scale s_ij + logit_bias)) for each image i: y is 1 for its own text, -1 for the others.

    Args:
      images, texts: embeddings of shape (batch, features); text i belongs to image i. s are their inner products.
      logit_scale, logit_bias: scalars that are trained with the model; the defaults are good initial values.
      normalize: whether vectors are divided by their norms, so that s are cosines.
      where: of shape (batch,), True for the pairs that count; the loss is 0 elsewhere.

    Returns: an array of shape (batch,), whose mean is the paper's loss.

    Raises: ValueError if shapes do not fit.

    Reference: Zhai et al. 2023, arXiv:2303.15343.
    """
    x, y = same_shape("siglip_loss", images=images, texts=texts)
    _rows("siglip_loss", "images", x)
    mask = mask_of("siglip_loss", where, x.shape[:1])
    scale = scalar(logit_scale, x)
    bias = scalar(logit_bias, x)
    logits = scale * _products(_ready(x, mask, normalize), _ready(y, mask, normalize)) + bias
    own = jnp.eye(len(x), dtype=bool)
    losses = jax.nn.softplus(jnp.where(own, -logits, logits))
    return jnp.sum(hide(_pairs(mask, len(x)), losses), axis=1)


def _rows(loss: str, name: str, x: jax.Array) -> jax.Array:
    if x.ndim != 2:
        raise ValueError(f"{loss}: {name} must have the shape (batch, features), got {x.shape}")
    return x


def _pairs(mask: jax.Array | None, size: int) -> jax.Array:
    return jnp.ones((size, size), bool) if mask is None else mask[:, None] & mask[None, :]


def _ready(x: jax.Array, mask: jax.Array | None, normalize: bool) -> jax.Array:
    x = x if mask is None else hide(mask[:, None], x)
    return unit(x, 1) if normalize else x


def _products(x: jax.Array, y: jax.Array) -> jax.Array:
    """The inner products of rows of x and y at full precision: dividing by a small temperature magnifies errors."""
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
