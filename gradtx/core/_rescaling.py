# SPDX-License-Identifier: Apache-2.0
"""Sums of squares that leave the range of their dtype: taken again of numbers that are brought back into it.

The norm of the gradients is wanted in several places of an optimizer, by a guard, by clipping, by what records metrics.
Who has summed their squares makes them known to what runs inside; the arrays tell whether they are the same.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._calling import compiled_outside
from gradtx.core._dtypes import promotion, widen
from gradtx.core._operations import divide, exceeds, is_plain, select
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


Squares = tuple[jax.Array, Any]
"""(Σ |x/s|², s); s is the Python number 1 where no square left the range."""


def _as_arrays(found: Squares) -> Any:
    squares, scale = found
    if not isinstance(scale, float):
        return found
    if is_plain(squares):
        return squares, jnp.ones_like(squares) if squares.shape else squares.dtype.type(1)
    # It is made of the sum to have its sharding and its type, as in the other branch.
    return squares, 0 * squares + 1


def in_range(
    total: Any,
    again: Callable[[Any], Any],
    reduce: Callable[[Any], Any] | None = None,
    finish: Callable[[Squares], Any] = _as_arrays,
) -> Any:
    """(Σ |x/s|², s): the sum as it is and s = 1, if no square in it overflowed or vanished; else s is a power of two.

    Squares leave the range of float32 for numbers from 1e19 on and below 1e-19. The second pass runs only then, or
    where all numbers are 0 or one is NaN; under `vmap` both run and the right one is taken.

    Args:
      total: Σ |x|², or a list of such sums, which are under one condition: each makes a program longer.
      again: Σ |x/s|² for the s that it is given, of the structure and shape of `total`.
      reduce: the sum between devices of which each has a part of all x; None for one device.
      finish: what becomes of each pair, such as a norm.
    """
    if not isinstance(total, list):
        return in_range([total], lambda scales: [again(*scales)], reduce, finish)[0]

    def usual() -> list[Squares]:
        return [(squares, 1.0) for squares in total]

    def rescaled() -> list[Squares]:
        found = [_scale_of(x, len(total) == 1) for x in total]
        return list(zip(again(found), found, strict=True))

    def finished(pairs: Callable[[], list[Squares]], finish: Callable[[Squares], Any]) -> Callable[[], list]:
        return lambda: [finish(x) for x in pairs()]

    take = functools.reduce(jnp.logical_and, map(_is_usual, total))
    if reduce is None:
        return branch(take, finished(usual, finish), finished(rescaled, finish))
    parts = branch(take, finished(usual, _as_arrays), finished(rescaled, _as_arrays))
    return [finish(_joined(x)) for x in reduce([_for_all(*part) for part in parts])]


def in_range_over(parts: dict[Any, jax.Array], again: Callable[[Any, jax.Array], jax.Array]) -> Any:
    """`in_range` of the sum of several totals, each a part of what devices along some mesh axes have altogether.

    Args:
      parts: this device's total for each set of mesh axes.
      again: Σ |x/s|² for the mesh axes and the s that it is given.
    """
    found = {names: in_range(total, functools.partial(again, names)) for names, total in parts.items()}
    if not any(found):
        return found[()]
    return _joined(sum_over({names: _for_all(*each) for names, each in found.items()}))


@compiled_outside
def _is_usual(total: jax.Array) -> jax.Array:
    """Whether these sums of squares are in range."""
    least, most = _limits(total.dtype)
    found = jax.lax.eq(jax.lax.clamp(least, total, most), total)
    return jnp.all(found) if total.shape else found


def _limits(dtype: Any) -> tuple[Any, Any]:
    """The least and the largest of what is in range.

    What a sum of at least this size lost to underflow is less than its rounding.
    """
    limits = jnp.finfo(dtype)
    return dtype.type(float(limits.tiny) / float(limits.eps)), dtype.type(limits.max)


def _scale_of(total: jax.Array, alone: bool) -> jax.Array:
    """The scale for each of these sums. `alone` says that there is only this one, and that it is out of range."""
    least, most = _limits(total.dtype)
    much, little, one = [total.dtype.type(x) for x in (*scales(total.dtype), 1)]
    usual = little if alone and not total.shape else select(exceeds(least, total), little, one)
    return select(exceeds(total, most), much, usual)


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


def _joined(sums: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(Σ |x/s|², s) of the sums between devices for all three."""
    one, of_much, of_little = sums
    much, little = scales(one.dtype)
    least, most = _limits(one.dtype)
    small, large = one < least, one > most
    squares = jnp.where(large, of_much, jnp.where(small, of_little, one))
    return squares, jnp.where(large, much, jnp.where(small, little, 1)).astype(one.dtype)


def divided(x: Any, scale: jax.Array) -> Any:
    """x / scale, for an array or a tree of them, in at least the dtype of the scale."""
    x = widen(x, scale.dtype)
    with promotion(x):
        return jax.tree.map(lambda of: divide(of, scale), x)
