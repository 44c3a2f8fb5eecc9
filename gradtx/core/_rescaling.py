# SPDX-License-Identifier: Apache-2.0
"""Sums of squares that leave the range of their dtype: taken again of numbers that are brought back into it.

The norm of the gradients is wanted in several places of an optimizer, by a guard, by clipping, by what records metrics.
Who has summed their squares makes them known to what runs inside; the arrays tell whether they are the same.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._branching import branch
from gradtx.core._calling import compiled_outside
from gradtx.core._dtypes import promotion, widen
from gradtx.core._operations import add, divide, exceeds, is_plain, multiply, select, sum_of
from gradtx.core._over_devices import sum_over

_KNOWN: contextvars.ContextVar[tuple[list, Any] | None] = contextvars.ContextVar("known squares", default=None)


@contextlib.contextmanager
def knowing(arrays: list, found: tuple[jax.Array, jax.Array]) -> Iterator[None]:
    """Meanwhile the squares of these arrays are known: (Σ |x/s|², s)."""
    token = _KNOWN.set((arrays, found))
    try:
        yield
    finally:
        _KNOWN.reset(token)


def known_squares(arrays: list, dtype: Any) -> tuple[jax.Array, jax.Array] | None:
    """What is known of the squares of these very arrays, summed in this dtype."""
    known = _KNOWN.get()
    if known is None or known[1][0].dtype != dtype or len(known[0]) != len(arrays):
        return None
    return known[1] if all([x is y for x, y in zip(known[0], arrays, strict=True)]) else None


Squares = tuple[jax.Array, jax.Array]
"""(Σ |x/s|², s)."""


def _unscaled(squares: jax.Array) -> tuple[jax.Array, Any]:
    """The squares and s = 1, of the type of what stands for them in the other branch."""
    if is_plain(squares):
        return squares, jnp.ones_like(squares) if squares.shape else squares.dtype.type(1)
    # It is made of the sum to have its sharding.
    return squares, 0 * squares + 1


def in_range(
    total: Any,
    again: Callable[[Any], Any],
    reduce: Callable[[Any], Any] | None = None,
    only_large: bool = False,
) -> Any:
    """(Σ |x/s|², s): the sum as it is and s = 1, if no square in it overflowed or vanished; else s is a power of two.

    Squares leave the range of float32 for numbers from 1e19 on and below 1e-19. The second pass runs only then, or
    where all numbers are 0 or one is NaN; under `vmap` both run and the right one is taken.

    Args:
      total: Σ |x|², or a list of such sums, which are under one condition: each makes a program longer.
      again: Σ |x/s|² for the s that it is given, of the structure and shape of `total`.
      reduce: the sum between devices of which each has a part of all x; None for one device.
      only_large: whether a sum that is too small may stay as it is.
    """
    if not isinstance(total, list):
        return in_range([total], lambda scales: [again(*scales)], reduce, only_large)[0]

    def rescaled() -> list[Squares]:
        found = [_scale_of(x, len(total) == 1, only_large) for x in total]
        return list(zip(again(found), found, strict=True))

    take = functools.reduce(jnp.logical_and, [_is_usual(x, only_large) for x in total])
    found = branch(take, lambda: [_unscaled(x) for x in total], rescaled)
    return found if reduce is None else [joined(x) for x in reduce([_for_all(*part) for part in found])]


def in_range_over(
    parts: dict[Any, list],
    squares: Callable[..., jax.Array],
    dtype: Any,
    array_of: Callable[[Any], Any] = lambda x: x,
) -> Squares:
    """(Σ |x/s|², s) over leaves, as of `in_range`, of which devices along some mesh axes have a part each.

    Args:
      parts: this device's leaves for each set of mesh axes.
      squares: Σ |x|² of some of them, or with a scale as second argument Σ |x/s|².
      dtype: of these sums.
      array_of: the array of a leaf.
    """

    def of_part(leaves: list) -> Squares:
        # Outside of a trace nothing is small, which is found once.
        are_small = [is_small(array_of(x)) for x in leaves] if leaves and is_plain(array_of(leaves[0])) else []
        if not any(are_small):
            return in_range(squares(leaves), lambda scale: squares(leaves, scale))
        large = [x for x, small in zip(leaves, are_small, strict=True) if not small]
        small = [array_of(x) for x, small in zip(leaves, are_small, strict=True) if small]
        sums = added_up([_at_scales(x, dtype, (1.0, *scales(dtype))) for x in small])
        if not large:
            return joined(sums)
        total = add(sums[0], squares(large))
        return in_range(total, lambda scale: add(_at(scale, sums), squares(large, scale)))

    found = {names: of_part(leaves) for names, leaves in parts.items()}
    if not any(found):
        return found[()]
    return joined(sum_over({names: _for_all(*each) for names, each in found.items()}))


def added_up(measures: list) -> Any:
    """The sum of scalars, or of trees of them."""
    return measures[0] if len(measures) == 1 else _sum_of_several(*measures)


@compiled_outside
def _sum_of_several(*measures: Any) -> Any:
    return jax.tree.map(lambda *xs: _sum(xs), *measures)


AT_ONCE = 32
"""XLA makes one loop of a chain of additions, in a time that grows with the square of its length."""


def _sum(xs: Sequence[jax.Array]) -> jax.Array:
    if len(xs) > AT_ONCE:
        groups = [_sum(xs[i : i + AT_ONCE]) for i in range(0, len(xs), AT_ONCE)]
        xs = jax.lax.optimization_barrier(groups)
        return _sum(xs)
    return functools.reduce(add, xs)


SMALL = 1024
"""The squares of so many numbers are summed for all scales at once: a shorter program than one with a condition."""


def is_small(x: Any) -> bool:
    """Whether the squares of an array are to be summed for all scales at once."""
    return is_plain(x) and 0 < x.size <= SMALL and jnp.issubdtype(x.dtype, jnp.floating)


def in_range_at_once(x: jax.Array, only_large: bool = False) -> Squares:
    """(Σ |x/s|², s), as of `in_range`, of an array that `is_small`."""
    much, little = scales(x.dtype)
    if only_large:
        total, of_much = _at_scales(x, x.dtype, (1.0, much))
        return by_range(total, total, of_much), by_range(total, x.dtype.type(1), x.dtype.type(much))
    return joined(_at_scales(x, x.dtype, (1.0, much, little)))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _at_scales(x: jax.Array, dtype: Any, of: tuple[float, ...]) -> jax.Array:
    """Σ |x/s|² for each of these scales s, in the loops of one sum."""
    x = widen(x, dtype)
    factors = np.array([1 / s for s in of], dtype).reshape(-1, *(1,) * x.ndim)
    return _sums_of_squares(multiply(jax.lax.broadcast(x, (1,)), factors))


@jax.custom_jvp
def _sums_of_squares(xs: jax.Array) -> jax.Array:
    """Σ x² along all axes but the first."""
    return sum_of(multiply(xs, xs), tuple(range(1, xs.ndim)))


@_sums_of_squares.defjvp
def _sums_of_squares_jvp(primals: tuple, tangents: tuple) -> tuple:
    (xs,), (dxs,) = primals, tangents
    # Where a scaled number is infinite, nobody uses the sum, and infinity times the cotangent 0 would be NaN.
    finite = jnp.where(jnp.isinf(xs), 0, xs)
    return _sums_of_squares(xs), 2 * jnp.sum(finite * dxs, tuple(range(1, xs.ndim)))


def _is_usual(total: jax.Array, only_large: bool = False) -> jax.Array:
    """Whether these sums of squares are in range, or with `only_large` below its end."""
    return (_has_not_overflowed if only_large else _is_within)(total)


@compiled_outside
def _is_within(total: jax.Array) -> jax.Array:
    least, most = limits(total.dtype)
    found = jax.lax.eq(jax.lax.clamp(least, total, most), total)
    return jnp.all(found) if total.shape else found


@compiled_outside
def _has_not_overflowed(total: jax.Array) -> jax.Array:
    found = jax.lax.le(total, jnp.broadcast_to(limits(total.dtype)[1], total.shape))
    return jnp.all(found) if total.shape else found


def limits(dtype: Any) -> tuple[Any, Any]:
    """The least and the largest of what is in range.

    What a sum of at least this size lost to underflow is less than its rounding.
    """
    info = jnp.finfo(dtype)
    return dtype.type(float(info.tiny) / float(info.eps)), dtype.type(info.max)


def _scale_of(total: jax.Array, alone: bool, only_large: bool) -> Any:
    """The scale for each of these sums. `alone` says that there is only this one, and that it is out of range;
    `only_large`, that a sum that is too small may stay as it is.
    """
    one, much, little = [total.dtype.type(x) for x in (1, *scales(total.dtype))]
    if only_large and is_plain(total) and not total.shape:
        return much
    if alone and not total.shape:
        return select(exceeds(total, limits(total.dtype)[1]), much, little)
    return by_range(total, one, much, little)


def scales(dtype: Any) -> tuple[float, float]:
    """What large and what small numbers are divided by.

    These leave room for sums of 2^31 squares of the largest number, and bring up the smallest. A power of two divides
    without rounding, and one that is known beforehand spares a search for the largest number.
    """
    limits = jnp.finfo(dtype)
    return 2.0 ** (limits.maxexp * 5 // 8), 2.0 ** -(limits.maxexp * 25 // 32)


def _for_all(squares: jax.Array, scale: jax.Array) -> jax.Array:
    """Σ |x/s|² for each s that another device may need.

    No device knows the s of the others before they are asked, so each gives its squares for all three: they are asked
    once, and not in a branch. A part that is in range is negligible where another s is needed.
    """
    much, little = scales(squares.dtype)
    ratios = [jnp.minimum(scale / s, 1 / little) for s in (1.0, much, little)]
    return jnp.stack([squares * r * r for r in ratios])


def joined(sums: Any) -> Squares:
    """(Σ |x/s|², s) of the sums for all three."""
    one = sums[0]
    return by_range(one, *sums), by_range(one, *[one.dtype.type(s) for s in (1, *scales(one.dtype))])


def by_range(total: jax.Array, usual: Any, if_large: Any, if_small: Any = None) -> Any:
    """Of three what is right where a sum of squares is in range, where it overflowed, and where it is too small."""
    least, most = limits(total.dtype)
    others = usual if if_small is None else select(exceeds(least, total), if_small, usual)
    return select(exceeds(total, most), if_large, others)


def _at(scale: jax.Array, sums: Any) -> jax.Array:
    """The sum for this s."""
    one, of_much, of_little = sums
    return select(exceeds(scale, 1), of_much, select(exceeds(1, scale), of_little, one))


def divided(x: Any, scale: jax.Array) -> Any:
    """x / scale, for an array or a tree of them, in at least the dtype of the scale."""
    x = widen(x, scale.dtype)
    with promotion(x):
        return jax.tree.map(lambda of: divide(of, scale), x)
