# SPDX-License-Identifier: Apache-2.0
"""Moving averages of trees, and their bias correction.

Computed in at least float32; each moment keeps its dtype, and where the update or the moment is None, the moment stays.
A decay that is a Python number is folded in double precision. Trees or shapes that differ raise a `ValueError` with the
path.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._kinds import Tree
from gradtx.core._ranges import Decay, Fraction, NonNegative, Positive, Real
from gradtx.numerics._averages import ema, one_minus_power
from gradtx.numerics._safe import abs_sq
from gradtx.tree._leaves import kept

_NAMES = ("updates", "moments")


@checked
def bias_correction(moment: Tree, decay: Decay, count: Positive) -> Any:
    """moment / (1 - decay^count), leaf by leaf: corrects a moving average for its start at zero.

    Args:
      moment: a tree of moving averages; each leaf keeps its dtype, the division is done in at least float32.
      decay: the decay of the average, in [0, 1); a Python number is folded in double precision.
      count: the number of values averaged, at least 1.
    """

    def correct(m: Any) -> jax.Array:
        m = jnp.asarray(m)
        dtype = compute_dtype(m)
        weight = one_minus_power(decay, jnp.asarray(count).astype(dtype))
        with promotion(m):
            return (widen(m, dtype) / weight).astype(m.dtype)

    return jax.tree.map(correct, moment)


@checked
def update_moment(updates: Tree, moments: Tree, decay: Fraction, order: Real) -> Any:
    """decay * m + (1 - decay) * g^order: the moving average of a power of the gradient.

    Args:
      updates, moments: g and m, trees of one structure.
      order: the power, 1 for the mean and 2 for the uncentered variance.
    """
    return _averaged("update_moment", lambda g: g if order == 1 else g**order, updates, moments, decay)


@checked
def update_moment_per_elem_norm(updates: Tree, moments: Tree, decay: Fraction, order: Real) -> Any:
    """decay * m + (1 - decay) * |g|^order: the moving average of a power of the magnitude, real for complex g.

    Args:
      updates, moments: g and m, trees of one structure.
      order: the power, such as 2.
    """

    def power(g: jax.Array) -> jax.Array:
        return abs_sq(g) if order == 2 else jnp.abs(g) ** order

    return _averaged("update_moment_per_elem_norm", power, updates, moments, decay)


@checked
def update_infinity_moment(updates: Tree, moments: Tree, decay: Fraction, eps: NonNegative) -> Any:
    """max(decay * m, |g| + eps): the exponentially weighted infinity norm of AdaMax.

    Args:
      updates, moments: g and m, trees of one structure.
      eps: added to |g|; at least 0.
    """

    def largest(g: jax.Array, m: jax.Array) -> jax.Array:
        g, m, b, least = _widened(g, m, decay, eps)
        return jnp.maximum(b * m, jnp.abs(g) + least)

    return kept("update_infinity_moment", _NAMES, largest, updates, moments)


def _averaged(where: str, power: Any, updates: Any, moments: Any, decay: Any) -> Any:
    def average(g: jax.Array, m: jax.Array) -> jax.Array:
        g, m, b = _widened(g, m, decay)
        with promotion(g, m):
            return ema(m, power(g), b)

    return kept(where, _NAMES, average, updates, moments)


def _widened(g: jax.Array, m: jax.Array, *numbers: Any) -> tuple:
    dtype = compute_dtype(g, m)
    return *widen((g, m), dtype), *(x if isinstance(x, int | float) else widen(x, dtype) for x in numbers)
