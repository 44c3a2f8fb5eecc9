# SPDX-License-Identifier: Apache-2.0
"""Moving averages and their bias correction."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._dtypes import complex_dtype
from gradtx.core._operations import add, divide, multiply, subtract


def ema(average: jax.Array, x: jax.Array, decay: Any) -> jax.Array:
    """decay * average + (1 - decay) * x. A Python `decay` is folded in double precision."""
    rest = 1 - decay if isinstance(decay, int | float) else subtract(1.0, decay)
    return add(multiply(decay, average), multiply(rest, x))


def one_minus_power(decay: Any, t: jax.Array) -> jax.Array:
    """1 - decay^t: the total weight of a moving average that started at zero, after t steps.

    In float32, 1 - 0.999**1 is off by 1e-5, so for a Python `decay` this is -expm1(t log(decay)) with a logarithm in
    double precision. A traced `decay` is as inexact as its own dtype; the plain form has the same error as 1 - decay.
    """
    return 1 - decay**t if (lost := _minus_lost(decay, t)) is None else -lost


def correction(decay: Any, t: jax.Array) -> jax.Array:
    """1 / (1 - decay^t), which corrects a moving average for its start at zero, after t steps."""
    return 1 / (1 - decay**t) if (lost := _minus_lost(decay, t)) is None else divide(-1.0, lost)


def _minus_lost(decay: Any, t: jax.Array) -> jax.Array | None:
    """decay^t - 1 for a Python `decay`."""
    if not isinstance(decay, int | float):
        return None
    return jax.lax.expm1(multiply(t, math.log(decay))) if decay > 0 else jnp.full_like(t, -1.0)


def unbiased(decay: Any, t: jax.Array, nesterov: bool = False) -> tuple[Any, Any]:
    """The weights (a, b) for `weighted` that correct a moving average for its start at zero, after t steps.

    Plain: average / (1 - decay^t). Nesterov's, as in NAdam, looks one step ahead:
    decay * average / (1 - decay^(t+1)) + (1 - decay) * x / (1 - decay^t).
    """
    if not nesterov:
        return correction(decay, t), None
    return decay / one_minus_power(decay, t + 1), (1 - decay) / one_minus_power(decay, t)


def weighted(average: jax.Array, x: jax.Array, weights: tuple[Any, Any]) -> jax.Array:
    """a * average + b * x; without the term of x if b is None."""
    a, b = weights
    return multiply(a, average) if b is None else add(multiply(a, average), multiply(b, x))


def zeros_like(p: jax.Array, dtype: Any = None, *, real: bool = False) -> jax.Array:
    """Zeros of the shape and sharding of `p`, in `dtype` (its complex counterpart for complex `p`, unless `real`)."""
    if real and jnp.iscomplexobj(p):
        p = jnp.real(p)
    if dtype is not None and jnp.iscomplexobj(p):
        dtype = complex_dtype(dtype)
    return jnp.zeros_like(p, dtype=dtype)


def copy_of(p: jax.Array, dtype: Any = None) -> jax.Array:
    """A copy of `p`, in `dtype` (its complex counterpart for complex `p`)."""
    if dtype is not None and jnp.iscomplexobj(p):
        dtype = complex_dtype(dtype)
    return jnp.array(p, dtype)
