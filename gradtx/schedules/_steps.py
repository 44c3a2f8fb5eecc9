# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on step counts. Whole numbers stay integers, as float32 holds them only up to 2**24."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._ranges import is_number

_LARGEST = 2**31 - 1


def counted(count: Any) -> jax.Array:
    """A count as an array that is not weakly typed."""
    count = jnp.asarray(count)
    small = jnp.issubdtype(count.dtype, jnp.integer) and count.dtype.itemsize < 4
    return jnp.asarray(count, jnp.int32 if small else count.dtype)


def floating(count: jax.Array) -> jax.Array:
    """The count as a float: of its own dtype, or of the default one for integers."""
    return count if jnp.issubdtype(count.dtype, jnp.floating) else count.astype(jnp.result_type(float))


def alike(count: jax.Array, *numbers: Any) -> tuple:
    """The count and the numbers in the dtype of the count; Python numbers stay Python, to be folded in double."""
    dtype = count.dtype
    kept = (x if x is None else float(x) if is_number(x) else jnp.asarray(x, dtype) for x in numbers)
    return (jnp.asarray(count, dtype), *kept)  # the dtype by name, as a Python float makes a weakly typed count


def paired(count: jax.Array, number: Any) -> tuple[jax.Array, jax.Array]:
    """The count and a number of steps in one dtype: that of the count if both are whole, else a float."""
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
    """Whether the count is at the boundary or behind it."""
    count, boundary = paired(count, boundary)
    return count >= boundary


def since(count: jax.Array, begin: Any) -> jax.Array:
    """How many steps after `begin`, never less than 0; integers saturate."""
    count, begin = paired(count, begin)
    steps = jnp.where(count >= begin, count - begin, jnp.zeros([], count.dtype))
    if jnp.issubdtype(count.dtype, jnp.integer):
        return jnp.where(steps < 0, jnp.iinfo(count.dtype).max, steps)  # after count - begin with begin < 0
    return steps


def joined(count: jax.Array, curves: Sequence[Callable], boundaries: Sequence) -> jax.Array:
    """curves[i](count - boundaries[i-1]) for boundaries[i-1] <= count < boundaries[i]."""
    result = jnp.zeros_like(floating(count))
    starts, stops = (-math.inf, *boundaries), (*boundaries, math.inf)
    for curve, start, stop, begin in zip(curves, starts, stops, (0, *boundaries), strict=True):
        # A curve is asked about its own steps only: others may be out of its domain, where derivatives are NaN.
        own = since(count, begin)
        own = jnp.where(reached(count, start) & ~reached(count, stop), own, jnp.zeros([], own.dtype))
        result = jnp.where(reached(count, start), jnp.asarray(curve(own), result.dtype), result)
    return result


def total(*lengths: Any) -> Any:
    """The sum of numbers of steps; None if one of them is None, which stands for no end."""
    if any(x is None for x in lengths):
        return None
    return sum(_comparable(lengths))


def longest(*lengths: Any) -> Any:
    """The largest of numbers of steps; None if one of them is None, which stands for no end."""
    if any(x is None for x in lengths):
        return None
    first, *rest = _comparable(lengths)
    for x in rest:
        first = max(first, x) if is_number(first) and is_number(x) else jnp.maximum(first, x)
    return first


def _comparable(lengths: Sequence) -> Sequence:
    """Python numbers as they are; with arrays among them, all integers or all floats."""
    if all(map(is_number, lengths)):
        return lengths
    arrays = [jnp.asarray(x) for x in lengths]
    whole = all(jnp.issubdtype(x.dtype, jnp.integer) for x in arrays)
    return [x.astype(int if whole else float) for x in arrays]
