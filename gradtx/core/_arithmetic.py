# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of `jax.numpy` that is quick to trace.

Each operator and function of `jax.numpy` is a compiled function of its own, which is traced anew for each shape and
then copied into what is being traced: about ten times the work of the operation. Those here bind the operation directly
where nothing has to be promoted or broadcast, and are those of `jax.numpy` otherwise. They pay off where every
optimizer passes; elsewhere operators read better.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

Operation = Callable[[Any, Any], Any]


def _bound(operation: Operation, otherwise: Operation) -> Operation:
    """The operation where two numbers are as those of `jax.lax` take them and one of them is traced.

    A Python number gets the dtype of the other, as in `jax.numpy`.
    """

    def of(x: Any, y: Any) -> Any:
        if not (isinstance(x, Tracer) or isinstance(y, Tracer)):
            return otherwise(x, y)  # outside of a trace what is compiled is faster
        if type(x) is float or type(x) is int:
            return operation(y.dtype.type(x), y) if y.dtype.kind in "fc" else otherwise(x, y)
        if type(y) is float or type(y) is int:
            return operation(x, x.dtype.type(y)) if x.dtype.kind in "fc" else otherwise(x, y)
        dtype = getattr(x, "dtype", None)
        if dtype is None or dtype.kind not in "fc" or getattr(y, "dtype", None) != dtype:
            return otherwise(x, y)
        return operation(x, y) if x.shape == y.shape or not x.shape or not y.shape else otherwise(x, y)

    return of


add = _bound(lax.add, jnp.add)
multiply = _bound(lax.mul, jnp.multiply)
divide = _bound(lax.div, jnp.divide)
maximum = _bound(lax.max, jnp.maximum)
differs = _bound(lax.ne, jnp.not_equal)
exceeds = _bound(lax.gt, jnp.greater)


_pair = _bound(lambda x, y: (x, y), lambda x, y: None)


def select(condition: Any, x: Any, y: Any) -> Any:
    """`jnp.where`."""
    cases = (x, y) if isinstance(x, np.generic) and type(x) is type(y) else _pair(x, y)
    if cases is None or not _is_plain(condition) or any([z.shape and z.shape != condition.shape for z in cases]):
        return jnp.where(condition, x, y)
    shape = condition.shape
    return lax.select(condition, *[z if z.shape == shape else lax.broadcast(z, shape) for z in cases])


def sum_over(x: Any, axis: int | tuple[int, ...] | None) -> Any:
    """`jnp.sum` over these axes."""
    if not _is_plain(x) or x.dtype.kind not in "fc" or x.dtype.itemsize < 4:
        return jnp.sum(x, axis=axis)
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return lax.reduce_sum(x, tuple([a % x.ndim for a in axes]))


def _is_plain(x: Any) -> bool:
    """Whether it is traced and its type says nothing of devices, which results would have to repeat."""
    return isinstance(x, Tracer) and jax.typeof(x).sharding.mesh.empty
