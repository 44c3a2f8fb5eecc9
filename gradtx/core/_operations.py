# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of `jax.numpy` that is quick to trace.

Each operator and function of `jax.numpy` is a compiled function of its own, which is traced anew for each shape and
then copied into what is being traced: about ten times the work of the operation. Those here bind the operation directly
where nothing has to be promoted, and are those of `jax.numpy` otherwise. They pay off where every optimizer passes;
elsewhere operators read better.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

Operation = Callable[[Any, Any], Any]


def _bound(
    operation: Operation, otherwise: Operation, neutral: Any = None, first: Any = None, kinds: str = "fc"
) -> Operation:
    """The operation where two numbers are as those of `jax.lax` take them and one of them is traced.

    A Python number gets the dtype of the other, as in `jax.numpy`.

    Args:
      otherwise: the operation for all others.
      neutral, first: the Python numbers that as second, or first, operand leave the other as it is.
      kinds: of the dtypes: "f" for real numbers, "c" for complex ones, which have no order in `jax.lax`.
    """

    def of(x: Any, y: Any) -> Any:
        if not (isinstance(x, Tracer) or isinstance(y, Tracer)):
            return otherwise(x, y)  # outside of a trace what is compiled is faster
        if type(x) is float or type(x) is int:
            if y.dtype.kind not in kinds or y.weak_type:
                return otherwise(x, y)
            return y if x == first else operation(y.dtype.type(x), y)
        if type(y) is float or type(y) is int:
            if x.dtype.kind not in kinds or x.weak_type:
                return otherwise(x, y)
            return x if y == neutral else operation(x, x.dtype.type(y))
        dtype = getattr(x, "dtype", None)
        if dtype is None or dtype.kind not in kinds or getattr(y, "dtype", None) != dtype:
            return otherwise(x, y)
        if getattr(x, "weak_type", False) or getattr(y, "weak_type", False):
            return otherwise(x, y)
        return operation(x, y) if not x.shape or not y.shape or len(x.shape) == len(y.shape) else otherwise(x, y)

    return of


add = _bound(lax.add, jnp.add, 0, 0)
subtract = _bound(lax.sub, jnp.subtract, 0)
multiply = _bound(lax.mul, jnp.multiply, 1, 1)
divide = _bound(lax.div, jnp.divide, 1)
minimum = _bound(lax.min, jnp.minimum, kinds="f")
maximum = _bound(lax.max, jnp.maximum, kinds="f")
differs = _bound(lax.ne, jnp.not_equal)
exceeds = _bound(lax.gt, jnp.greater, kinds="f")
_pair = _bound(lambda x, y: (x, y), lambda x, y: None)


def select(condition: Any, x: Any, y: Any) -> Any:
    """`jnp.where`."""
    are_alike = isinstance(x, np.generic) and type(x) is type(y)
    cases: Any = (x, y) if are_alike else _pair(x, y)
    if cases is None or not is_plain(condition):
        return jnp.where(condition, x, y)  # type: ignore[arg-type]  # numbers of NumPy are, too
    shape = np.broadcast_shapes(condition.shape, *[z.shape for z in cases])
    condition, x, y = [z if z.shape == shape else _broadcast(z, shape) for z in (condition, *cases)]
    return lax.select(condition, x, y)


def _broadcast(x: Any, shape: tuple[int, ...]) -> Any:
    return lax.broadcast_in_dim(x, shape, range(len(shape) - len(x.shape), len(shape)))


def sum_of(x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """`jnp.sum`."""
    if not is_plain(x) or x.dtype.kind not in "fc" or x.dtype.itemsize < 4:
        return jnp.sum(x, axis=axis, keepdims=keepdims)
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = tuple([a % x.ndim for a in axes])
    found = lax.reduce_sum(x, axes)
    return lax.expand_dims(found, axes) if keepdims else found


def is_plain(x: Any) -> bool:
    """Whether it is traced and its type says nothing of devices, which results would have to repeat."""
    return isinstance(x, Tracer) and jax.typeof(x).sharding.mesh.empty
