# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on step counts. Integers stay integers, since float32 holds them exactly only up to 2**24."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._ranges import at_step, is_number

_LARGEST = 2**31 - 1


def counted(count: Any) -> jax.Array:
    """The count as a strongly typed array: of signed integers of at least 32 bits, or of floats.

    Whole numbers too large for the integers of JAX become floats; of a traced unsigned type, the largest integer.

    Raises:
      TypeError: for anything but real numbers.
    """
    if isinstance(count, int | np.integer | np.ndarray):
        count = np.asarray(float(count) if isinstance(count, int) and abs(count) >= 2**63 else count)
        if count.dtype.kind in "iu" and count.size:
            limits = jnp.iinfo(jnp.result_type(int))
            fits = limits.min <= count.min() and count.max() <= limits.max  # else JAX wraps around
            count = count.astype(limits.dtype if fits else np.float64)
    count = jnp.asarray(count)
    if jnp.issubdtype(count.dtype, jnp.floating):
        return jnp.asarray(count, count.dtype)
    if not (jnp.issubdtype(count.dtype, jnp.integer) or count.dtype == bool):
        raise TypeError(f"a schedule is a function of the step, a real number; got {count.dtype}")
    if jnp.issubdtype(count.dtype, jnp.unsignedinteger):
        wide = jnp.iinfo(jnp.result_type(int))
        largest = jnp.asarray(min(wide.max, jnp.iinfo(count.dtype).max), count.dtype)
        return jnp.minimum(count, largest).astype(wide.dtype)
    return jnp.asarray(count, jnp.int32 if count.dtype.itemsize < 4 else count.dtype)


def floating(count: jax.Array) -> jax.Array:
    """The count as a float: in its own dtype, or in the default one for integers."""
    return count if jnp.issubdtype(count.dtype, jnp.floating) else count.astype(jnp.result_type(float))


def in_floats(count: jax.Array, *numbers: Any) -> tuple:
    """The numbers in the dtype of the count as a float; Python numbers stay floats, folded in double precision."""
    dtype = floating(count).dtype
    return tuple(x if x is None else float(x) if is_number(x) else jnp.asarray(x, dtype) for x in numbers)


def alike(count: jax.Array, *numbers: Any) -> tuple:
    """The count and the numbers as floats. Not for numbers of steps: float32 does not hold them all."""
    return floating(count), *in_floats(count, *numbers)


def paired(count: jax.Array, number: Any) -> tuple[jax.Array, jax.Array]:
    """The count and a number of steps in one dtype: that of the count if both are integers, else a float."""
    number = _plain(number)
    if jnp.issubdtype(count.dtype, jnp.integer):
        if is_number(number):
            whole = abs(number) < _LARGEST and number == int(number)
        else:
            whole = jnp.issubdtype(jnp.asarray(number).dtype, jnp.integer)
        if whole:
            return count, jnp.asarray(int(number) if is_number(number) else number, count.dtype)
        count = floating(count)
    return count, jnp.asarray(number, count.dtype)


def reached(count: jax.Array, boundary: Any) -> jax.Array:
    """Whether the count is at the boundary or past it."""
    boundary = _plain(boundary)
    if is_number(boundary) and jnp.issubdtype(count.dtype, jnp.integer):
        limits = jnp.iinfo(count.dtype)
        if not limits.min < boundary <= limits.max:
            return jnp.full_like(count, boundary <= limits.min, bool)
        boundary = math.ceil(boundary)  # which a whole number reaches at the same step
        return count >= jnp.asarray(boundary, count.dtype)
    count, boundary = paired(count, boundary)
    return count >= boundary


def since(count: jax.Array, begin: Any) -> jax.Array:
    """The number of steps since `begin`, 0 before it; integers saturate."""
    count, begin = paired(count, begin)
    steps = jnp.where(count >= begin, count - begin, jnp.zeros([], count.dtype))
    if jnp.issubdtype(count.dtype, jnp.integer):
        return jnp.where(steps < 0, jnp.iinfo(count.dtype).max, steps)  # count - begin overflows for begin < 0
    return steps


def between(begin: Any, end: Any) -> Any:
    """The number of steps from one to another."""
    end, begin = _comparable((end, begin))
    return end - begin


def joined(count: jax.Array, curves: Sequence[Callable[..., Any]], boundaries: Sequence) -> jax.Array:
    """curves[i](count - boundaries[i-1]) for boundaries[i-1] <= count < boundaries[i]."""
    result = jnp.zeros_like(floating(count))
    starts, stops = (-math.inf, *boundaries), (*boundaries, math.inf)
    for curve, start, stop, begin in zip(curves, starts, stops, (0, *boundaries), strict=True):
        # A curve is evaluated at its own steps only: others may be outside its domain, where derivatives are NaN.
        own = since(count, begin)
        own = jnp.where(reached(count, start) & ~reached(count, stop), own, jnp.zeros([], own.dtype))
        result = jnp.where(
            reached(count, start), jnp.asarray(at_step("schedules one after another", curve, own), result.dtype), result
        )
    return result


def total(*lengths: Any) -> Any:
    """The sum of lengths; None, which means no end, if one of them is None."""
    if any(x is None for x in lengths):
        return None
    return sum(_comparable(lengths))


def longest(*lengths: Any) -> Any:
    """The largest of lengths; None, which means no end, if one of them is None."""
    if any(x is None for x in lengths):
        return None
    first, *rest = _comparable(lengths)
    for x in rest:
        first = max(first, x) if is_number(first) and is_number(x) else jnp.maximum(first, x)
    return first


def _plain(number: Any) -> Any:
    """The number, a Python number if it is one of NumPy, whose integers may be too large for JAX."""
    return number.item() if isinstance(number, np.ndarray | np.generic) and np.ndim(number) == 0 else number


def _comparable(lengths: Sequence) -> Sequence:
    """The lengths, unchanged if all are Python numbers; otherwise as arrays, all integers or all floats."""
    lengths = [_plain(x) for x in lengths]
    if all(map(is_number, lengths)):
        return lengths
    arrays = [jnp.asarray(x) for x in lengths]
    whole = all(jnp.issubdtype(x.dtype, jnp.integer) for x in arrays)
    return [x.astype(int if whole else float) for x in arrays]
