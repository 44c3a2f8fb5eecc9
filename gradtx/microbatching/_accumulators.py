# SPDX-License-Identifier: Apache-2.0
"""How results of microbatches are combined."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from gradtx.core._dtypes import widened_dtype
from gradtx.core._trees import align


class AccumulationType(enum.Enum):
    """How the results of the microbatches are combined.

    MEAN divides each result by the number of microbatches and adds it; RUNNING_MEAN updates the mean of the results
    so far; SUM adds them; CONCAT concatenates them along axis 0 in the order of the batch.
    """

    MEAN = 1
    SUM = 2
    RUNNING_MEAN = 3
    CONCAT = 4


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """A custom way to combine the results of microbatches; see `microbatch`.

    ```
    init(value) -> carry                  once, with the shapes and dtypes of a result
    update(carry, value, index) -> carry  with the result of each microbatch
    finalize(carry) -> result             once, at the end
    aggregate(values) -> value            only in `micro_vmap`: from the results of a microbatch's examples on axis 0
    ```
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, jax.Array], Any]
    finalize: Callable[[Any], Any] = lambda carry: carry
    aggregate: Callable[[Any], Any] = lambda values: values


class Bound:
    """An accumulator and its initial carry."""

    def __init__(self, accumulator: Accumulator, carry: Any):
        self.accumulator, self.carry = accumulator, carry


def known(accumulator: Any, count: int, n: jax.Array) -> Any:
    """The tree of accumulators, with an `Accumulator` in place of each `AccumulationType`."""
    return jax.tree.map(lambda a: _of_type(a, count, n), accumulator, is_leaf=_is_accumulator)


def _is_accumulator(x: Any) -> bool:
    return isinstance(x, Accumulator | AccumulationType)


def per_part(f: Callable, accumulator: Any, values: Any) -> Any:
    """f(accumulator, part of the values) for each accumulator of the prefix."""
    entries, prefix = jax.tree.flatten(accumulator, is_leaf=_is_accumulator)
    for a in entries:
        if not _is_accumulator(a):
            raise TypeError(f"microbatch: accumulator must be an AccumulationType or an Accumulator, got {a!r}")
    parts = align(prefix, values, "microbatch", "the result", accumulator, "accumulator")
    zero = jnp.ones([], jnp.int32)
    found = [_of_type(a, 1, zero) for a in entries]
    return prefix.unflatten([f(a, part) for a, part in zip(found, parts, strict=True)])


def _of_type(a: Any, count: int, n: jax.Array) -> Accumulator:
    """The `Accumulator` of an `AccumulationType`, for `count` microbatches of which `n` are real."""
    if not isinstance(a, AccumulationType):
        return a
    if a is AccumulationType.CONCAT:
        return _concatenation(count)
    mean = a is not AccumulationType.SUM

    def init(value: Any) -> Any:
        if mean and not all(jnp.issubdtype(x.dtype, jnp.inexact) for x in jax.tree.leaves(value)):
            raise ValueError(f"microbatch: the {a.name} of whole numbers is none; make fun return floats")
        return jax.tree.map(lambda x: _Sum(_zeros(x, _dtype_of_sum(x)), jnp.zeros([0], _narrow(x))), value)

    def update(carry: Any, value: Any, i: jax.Array) -> Any:
        def add(x: jax.Array, s: _Sum) -> _Sum:
            wide = jnp.asarray(x).astype(s.total.dtype)
            if a is AccumulationType.MEAN:
                wide = wide / jnp.maximum(n, 1).astype(wide.dtype)
            elif mean:
                wide = (wide - s.total) / (i + 1).astype(wide.dtype)
            return s._replace(total=s.total + wide)

        return jax.tree.map(add, value, carry)

    def finalize(carry: Any) -> Any:
        return jax.tree.map(lambda s: s.total.astype(s.like.dtype), carry, is_leaf=lambda x: isinstance(x, _Sum))

    def aggregate(values: Any) -> Any:
        return jax.tree.map(lambda x: _reduce(x, mean), values)

    return Accumulator(init, update, finalize, aggregate)


def _concatenation(count: int) -> Accumulator:
    def init(value: Any) -> Any:
        return jax.tree.map(lambda x: _zeros(x, x.dtype, count), value)

    def update(carry: Any, value: Any, i: jax.Array) -> Any:
        def put(x: jax.Array, whole: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_index_in_dim(whole, x.astype(whole.dtype), i, min(x.ndim, 1))

        return jax.tree.map(put, jax.tree.map(jnp.asarray, value), carry)

    def finalize(carry: Any) -> Any:
        return jax.tree.map(lambda x: x if x.ndim == 1 else x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), carry)

    return Accumulator(init, update, finalize, lambda values: values)


def _zeros(x: Any, dtype: Any, count: int | None = None) -> jax.Array:
    """Zeros for results like x, sharded as they are; with a count, for so many of them behind axis 0."""
    if count is None:
        return jnp.zeros(x.shape, dtype, device=x.sharding)
    spread = x.sharding
    if spread is not None and x.ndim:
        spread = spread.update(spec=P(*spread.spec[:1], None, *spread.spec[1:]))
    return jnp.zeros((*x.shape[:1], count, *x.shape[1:]), dtype, device=spread)


class _Sum(NamedTuple):
    """The sum so far, and an empty array that carries the dtype of the result."""

    total: jax.Array
    like: jax.Array


def _narrow(x: Any) -> Any:
    return jnp.dtype(jnp.int32) if x.dtype == bool else x.dtype


def _dtype_of_sum(x: Any) -> Any:
    """The dtype in which results like x are summed."""
    return widened_dtype(x) if jnp.issubdtype(x.dtype, jnp.inexact) else _narrow(x)


def _reduce(x: jax.Array, mean: bool) -> jax.Array:
    total = jnp.sum(x.astype(_dtype_of_sum(x)), axis=0)
    if mean and jnp.issubdtype(x.dtype, jnp.inexact):
        total = total / x.shape[0]
    return total.astype(_narrow(x))
