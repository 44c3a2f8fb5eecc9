# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on step counts. Integers stay integers, since float32 holds them exactly only up to 2**24."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._ranges import is_number

_LARGEST = 2**31 - 1


def counted(count: Any) -> jax.Array:
    """The count as an array, strongly typed, of at least 32 bits if it is an integer."""
    count = jnp.asarray(count)
    small = jnp.issubdtype(count.dtype, jnp.integer) and count.dtype.itemsize < 4
    return jnp.asarray(count, jnp.int32 if small else count.dtype)


def floating(count: jax.Array) -> jax.Array:
    """The count as a float: in its own dtype, or in the default one for integers."""
    return count if jnp.issubdtype(count.dtype, jnp.floating) else count.astype(jnp.result_type(float))


def alike(count: jax.Array, *numbers: Any) -> tuple:
    """The count and the numbers in the dtype of the count; Python numbers stay floats, folded in double precision."""
    dtype = count.dtype
    kept = (x if x is None else float(x) if is_number(x) else jnp.asarray(x, dtype) for x in numbers)
    return (jnp.asarray(count, dtype), *kept)  # an explicit dtype, since a Python float makes the count weakly typed


def paired(count: jax.Array, number: Any) -> tuple[jax.Array, jax.Array]:
    """The count and a number of steps in one dtype: that of the count if both are integers, else a float."""
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
    count, boundary = paired(count, boundary)
    return count >= boundary


def since(count: jax.Array, begin: Any) -> jax.Array:
    """The number of steps since `begin`, 0 before it; integers saturate."""
    count, begin = paired(count, begin)
    steps = jnp.where(count >= begin, count - begin, jnp.zeros([], count.dtype))
    if jnp.issubdtype(count.dtype, jnp.integer):
        return jnp.where(steps < 0, jnp.iinfo(count.dtype).max, steps)  # count - begin overflows for begin < 0
    return steps


def joined(count: jax.Array, curves: Sequence[Callable[..., Any]], boundaries: Sequence) -> jax.Array:
    """curves[i](count - boundaries[i-1]) for boundaries[i-1] <= count < boundaries[i]."""
    result = jnp.zeros_like(floating(count))
    starts, stops = (-math.inf, *boundaries), (*boundaries, math.inf)
    for curve, start, stop, begin in zip(curves, starts, stops, (0, *boundaries), strict=True):
        # A curve is evaluated at its own steps only: others may be outside its domain, where derivatives are NaN.
        own = since(count, begin)
        own = jnp.where(reached(count, start) & ~reached(count, stop), own, jnp.zeros([], own.dtype))
        result = jnp.where(reached(count, start), jnp.asarray(curve(own), result.dtype), result)
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


def _comparable(lengths: Sequence) -> Sequence:
    """The lengths, unchanged if all are Python numbers; otherwise as arrays, all integers or all floats."""
    if all(map(is_number, lengths)):
        return lengths
    arrays = [jnp.asarray(x) for x in lengths]
    whole = all(jnp.issubdtype(x.dtype, jnp.integer) for x in arrays)
    return [x.astype(int if whole else float) for x in arrays]
