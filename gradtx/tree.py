# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on trees."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.dtypes import compute_dtype, promotion, widen
from gradtx.core.trees import align, check_shapes, is_none
from gradtx.numerics.moments import one_minus_power
from gradtx.numerics.safe import abs_sq, safe_sqrt


def global_norm(tree: Any) -> jax.Array:
    """sqrt(Σ |x|²) over all elements of all leaves, in at least float32; 0 for an empty tree."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(leaves)
    squares = [jnp.sum(abs_sq(widen(x, dtype))) for x in leaves]
    return safe_sqrt(jnp.sum(jnp.stack(squares))) if squares else jnp.zeros([], dtype)


def incremental_update(new_tensors: Any, old_tensors: Any, step_size: Any) -> Any:
    """step_size * new + (1 - step_size) * old, leaf by leaf: a moving average, as of a target network.

    Computed in at least float32; each leaf keeps the dtype of the old one. Where one of the two is None, the old one
    stays.

    Args:
      step_size: a scalar, 1 for the new tree.

    Raises:
      ValueError: if the trees or the shapes differ; nothing is broadcast.
    """

    def average(new: jax.Array, old: jax.Array) -> jax.Array:
        dtype = compute_dtype(new, old)
        wide_new, wide_old, weight = widen((new, old, step_size), dtype)
        with promotion(new, old):
            return weight * wide_new + (1 - weight) * wide_old

    return _updated("incremental_update", average, new_tensors, old_tensors)


def periodic_update(new_tensors: Any, old_tensors: Any, steps: Any, update_period: int) -> Any:
    """`new_tensors` where `steps` is a multiple of `update_period`, else `old_tensors`: a target network that jumps.

    Each leaf keeps the dtype of the old one. Where one of the two is None, the old one stays.

    Args:
      steps: the number of updates made, which may be traced; 0 takes the new tree.

    Raises:
      ValueError: if the trees or the shapes differ, or the period is not positive.
    """
    if not isinstance(update_period, jax.Array) and update_period < 1:
        raise ValueError(f"periodic_update: update_period must be at least 1, got {update_period!r}")
    due = steps % update_period == 0
    return _updated(
        "periodic_update", lambda new, old: jnp.where(due, new.astype(old.dtype), old), new_tensors, old_tensors
    )


def _updated(where: str, f: Callable, new: Any, old: Any) -> Any:
    """`f(new, old)` for each pair of leaves, with the dtype of the old one."""
    olds, treedef = jax.tree.flatten(old, is_leaf=is_none)
    news = align(treedef, new, where, "new_tensors", old, "old_tensors")
    held = [None if o is None else n for n, o in zip(news, olds, strict=True)]
    check_shapes(where, "new tensor", old, held, olds)

    def leaf(n: Any, o: Any) -> Any:
        if n is None:
            return o
        o = jnp.asarray(o)
        return f(jnp.asarray(n), o).astype(o.dtype)

    return jax.tree.unflatten(treedef, list(map(leaf, held, olds)))


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
