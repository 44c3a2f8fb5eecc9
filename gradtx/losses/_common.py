# SPDX-License-Identifier: Apache-2.0
"""What all losses share: checked inputs, masks, sums and log-probabilities."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._dtypes import compute_dtype, widen
from gradtx.numerics._safe import safe_sqrt

Axis = int | Sequence[int] | None


def real(loss: str, name: str, x: Any) -> jax.Array:
    """The argument as a real array; raises for None and for complex values."""
    if x is None:
        raise TypeError(f"{loss}: {name} must be an array, got None")
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x):
        raise ValueError(f"{loss}: {name} must be real, got {x.dtype}; give real and imaginary parts as two entries")
    return x


def check_shape(loss: str, name: str, x: jax.Array, shape: tuple[int, ...], what: str) -> None:
    """Raises unless the array has this shape."""
    if x.shape != shape:
        raise ValueError(f"{loss}: {name} must have {what}, {shape}, got {x.shape}; nothing is broadcast")


def same_shape(loss: str, **arrays: Any) -> list[jax.Array]:
    """The arrays in one dtype, at least float32; raises unless all have the shape of the first."""
    values = {n: real(loss, n, x) for n, x in arrays.items()}
    first, shape = next((n, x.shape) for n, x in values.items())
    for name, x in values.items():
        check_shape(loss, name, x, shape, f"the shape of {first}")
    return widen(list(values.values()), compute_dtype(*values.values()))


def scalar(value: Any, like: jax.Array) -> jax.Array:
    """The number in the dtype of `like`."""
    return widen(value, like.dtype)


def is_zero(value: Any) -> bool:
    """Whether an option is the Python number 0, so that its term need not be traced."""
    return isinstance(value, int | float) and value == 0


def integer_labels(loss: str, labels: Any, shape: tuple[int, ...], what: str) -> jax.Array:
    """The labels as integers; raises for another dtype or another shape."""
    labels = real(loss, "labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"{loss}: labels must be integers, got {labels.dtype}")
    check_shape(loss, "labels", labels, shape, what)
    # A narrow integer type may not hold the number of classes.
    return labels if labels.dtype == jnp.int64 else labels.astype(jnp.int32)


def mask_of(
    loss: str, where: Any, shape: tuple[int, ...], name: str = "where", classes: tuple[int, ...] = ()
) -> jax.Array | None:
    """The mask, broadcast to this shape: a scalar and axes of size 1 are repeated.

    The axes of the classes may be missing, so that whole examples count or not; other missing axes raise.
    """
    if where is None:
        return None
    where = jnp.asarray(where)
    if classes and 0 < where.ndim == len(shape) - len(classes):
        where = jnp.expand_dims(where, classes)
    if where.dtype != jnp.bool_:
        raise ValueError(f"{loss}: {name} must be boolean, True for what counts, got {where.dtype}; give x != 0")
    fits = where.ndim == len(shape) and all(n in (1, m) for n, m in zip(where.shape, shape, strict=True))
    if where.ndim and not fits:
        raise ValueError(
            f"{loss}: {name} must have the shape {shape}, or 1 instead of some of its sizes, got {where.shape}"
        )
    return jnp.broadcast_to(where, shape)


def check_classes(loss: str, name: str, count: int, instead: str) -> None:
    """Raises for one class: its probability is 1 and the loss the same, whatever was predicted."""
    if count == 1:
        raise ValueError(f"{loss}: {name} must have at least two classes, got one, whose probability is 1; {instead}")


def hide(mask: jax.Array | None, x: jax.Array, fill: Any = 0) -> jax.Array:
    """x with `fill` where the mask is False. Used before a computation, it keeps masked entries out of it, even NaN."""
    return x if mask is None else jnp.where(mask, x, fill)


def elementwise(loss: str, f: Callable[..., jax.Array], where: Any, **arrays: Any) -> jax.Array:
    """`f` of arrays of one shape, and 0 where `where` is False.

    A last axis of size 1 is repeated where the first array has another size, one target for several predictions, unless
    it is the only axis, which counts the examples.
    """
    first, *rest = (real(loss, n, x) for n, x in arrays.items())
    if first.ndim > 1:
        rest = [jnp.broadcast_to(x, first.shape) if x.shape == (*first.shape[:-1], 1) else x for x in rest]
    values = same_shape(loss, **dict(zip(arrays, (first, *rest), strict=True)))
    mask = mask_of(loss, where, values[0].shape)
    return hide(mask, f(*(hide(mask, x) for x in values)))


def checked_axis(loss: str, axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes as a tuple of distinct non-negative numbers; all axes for None."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    if not all(-ndim <= a < ndim for a in axes):
        raise ValueError(f"{loss}: axis must name axes of an array of rank {ndim}, got {axis}")
    axes = tuple(a % ndim for a in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{loss}: axis must not name an axis twice, got {axis}")
    return axes


def clamped(x: jax.Array, low: jax.Array | float, high: float = jnp.inf) -> jax.Array:
    """x, moved into the interval that rounding made it leave; derivatives are those of x."""
    return x + jax.lax.stop_gradient(jnp.where(x < low, low - x, jnp.where(x > high, high - x, 0)))


def safe_product(weight: jax.Array, value: jax.Array) -> jax.Array:
    """weight * value, and 0 where a weight of 0 meets an infinite value, as in 0 log(0)."""
    return weight * jnp.where((weight == 0) & jnp.isinf(value), 0, value)


def masked_mean(x: jax.Array, mask: jax.Array | None, axis: Axis = None) -> jax.Array:
    """The mean of the unmasked entries; 0 if all are masked."""
    axes = tuple(range(x.ndim)) if axis is None else axis
    total = jnp.sum(hide(mask, x), axis=axes)
    ones = jnp.ones_like(x) if mask is None else mask.astype(x.dtype)
    return total / jnp.maximum(jnp.sum(ones, axis=axes), 1)


def shifted_exponents(x: jax.Array, axis: Axis, mask: jax.Array | None = None) -> tuple[jax.Array, ...]:
    """(x - m, log(Σ exp(x - m)), m) with the axis kept, where m is the largest unmasked entry.

    x - m is -inf where masked. Where all entries are masked, the sum is empty: its logarithm is set to 0 with
    derivative 0.
    """
    x = hide(mask, x)
    largest = jax.lax.stop_gradient(jnp.max(hide(mask, x, -jnp.inf), axis=axis, keepdims=True))
    largest = jnp.where(jnp.isinf(largest), 0, largest)
    shifted = hide(mask, x - largest, -jnp.inf)
    total = jnp.sum(jnp.exp(shifted), axis=axis, keepdims=True)
    return shifted, jnp.log(jnp.where(total == 0, 1, total)), largest


def log_softmax(x: jax.Array, axis: Axis, mask: jax.Array | None = None) -> jax.Array:
    """Log-probabilities of the unmasked entries; -inf for masked ones."""
    shifted, log_total, _ = shifted_exponents(x, axis, mask)
    return shifted - log_total


def logsumexp(x: jax.Array, axis: Axis, mask: jax.Array | None = None) -> jax.Array:
    """log(Σ exp(x)) over the unmasked entries; -inf with derivative 0 if there are none."""
    shifted, log_total, largest = shifted_exponents(x, axis, mask)
    nothing = jnp.all(jnp.isneginf(shifted), axis=axis, keepdims=True)
    return jnp.squeeze(jnp.where(nothing, -jnp.inf, log_total + largest), axis)


def unit(x: jax.Array, axis: Axis, epsilon: jax.Array | float = 0.0) -> jax.Array:
    """x / sqrt(max(Σ x², epsilon)), and 0 with derivative 0 for the zero vector if epsilon is 0."""
    root = safe_sqrt(jnp.asarray(epsilon, x.dtype))
    # Squares of very large or very small entries overflow or underflow, so x is divided by its largest entry first.
    # The result does not depend on this divisor, which therefore needs no derivative.
    scale = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0), root))
    known = scale != 0
    scale = jnp.where(known, scale, 1)
    y = jnp.where(known, x / scale, 0)
    squares = jnp.maximum(jnp.sum(y * y, axis=axis, keepdims=True), (root / scale) ** 2)
    return y / jnp.sqrt(jnp.where(known, squares, 1))


def p_norm(x: jax.Array, degree: jax.Array, axis: Axis, epsilon: jax.Array | float = 0.0) -> jax.Array:
    """(Σ |x|^degree + epsilon)^(1/degree), with derivative 0 where it is 0."""
    epsilon = jnp.asarray(epsilon, x.dtype)
    size = jnp.abs(x)
    least = epsilon ** (1 / degree)
    scale = jax.lax.stop_gradient(jnp.maximum(jnp.max(size, axis=axis, keepdims=True, initial=0), least))
    known = scale != 0
    scale = jnp.where(known, scale, 1)
    positive = size > 0
    powers = jnp.where(positive, jnp.where(positive, size / scale, 1) ** degree, 0)
    total = jnp.sum(powers, axis=axis, keepdims=True) + (least / scale) ** degree
    norms = jnp.where(known, scale * jnp.where(known, total, 1) ** (1 / degree), 0)
    return jnp.squeeze(norms, axis)
