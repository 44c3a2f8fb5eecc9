# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on trees."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.dtypes import compute_dtype, widen
from gradtx.numerics.moments import one_minus_power
from gradtx.numerics.safe import abs_sq, safe_sqrt


def global_norm(tree: Any) -> jax.Array:
    """sqrt(Σ |x|²) over all elements of all leaves, in at least float32; 0 for an empty tree."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(leaves)
    squares = [jnp.sum(abs_sq(widen(x, dtype))) for x in leaves]
    return safe_sqrt(jnp.sum(jnp.stack(squares))) if squares else jnp.zeros([], dtype)


def bias_correction(moment: Any, decay: Any, count: Any) -> Any:
    """moment / (1 - decay^count), leaf by leaf: undoes the pull towards the zeros that a moving average starts from.

    Args:
      moment: a tree of moving averages; each leaf keeps its dtype, the division is done in at least float32.
      decay: the decay of the average, in [0, 1); a Python number is folded in double precision.
      count: the number of values averaged, at least 1.
    """

    def correct(m: Any) -> jax.Array:
        m = jnp.asarray(m)
        dtype = compute_dtype(m)
        return (widen(m, dtype) / one_minus_power(decay, jnp.asarray(count).astype(dtype))).astype(m.dtype)

    return jax.tree.map(correct, moment)
