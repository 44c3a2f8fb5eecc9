# SPDX-License-Identifier: Apache-2.0
"""Trees that follow another tree, such as the parameters of a target network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._kinds import Tree
from gradtx.core._ranges import Whole, is_array, is_number
from gradtx.tree._leaves import kept

_NAMES = ("new_tensors", "old_tensors")


@checked
def incremental_update(new_tensors: Tree, old_tensors: Tree, step_size: Any) -> Any:
    """step_size * new + (1 - step_size) * old, leaf by leaf: a moving average, as for a target network.

    Computed in at least float32; each leaf keeps the dtype of the old leaf. Where one of the two is None, the old leaf
    stays.

    Args:
      new_tensors, old_tensors: trees of one structure and of equal shapes.
      step_size: the weight of the new tree, a scalar in [0, 1].

    Raises:
      ValueError: if the trees or the shapes differ; nothing is broadcast. For a step size outside of [0, 1].
    """
    if not (is_number(step_size) or is_array(step_size)):
        raise TypeError(f"incremental_update: step_size must be a scalar in [0, 1], got {step_size!r}")
    if not isinstance(step_size, Tracer) and not (np.ndim(step_size) == 0 and 0 <= step_size <= 1):
        raise ValueError(f"incremental_update: step_size must be a scalar in [0, 1], got {step_size}")

    def average(new: jax.Array, old: jax.Array) -> jax.Array:
        dtype = compute_dtype(new, old)
        wide_new, wide_old, weight = widen((new, old, step_size), dtype)
        with promotion(new, old):
            return weight * wide_new + (1 - weight) * wide_old

    return kept("incremental_update", _NAMES, average, new_tensors, old_tensors)


@checked
def periodic_update(new_tensors: Tree, old_tensors: Tree, steps: Whole, update_period: Whole) -> Any:
    """`new_tensors` if `steps` is a multiple of `update_period`, else `old_tensors`: a target network that jumps.

    Each leaf keeps the dtype of the old leaf. Where one of the two is None, the old leaf stays.

    Args:
      new_tensors, old_tensors: trees of one structure and of equal shapes.
      steps: the number of updates made, which may be traced; 0 takes the new tree.
      update_period: the number of steps between two jumps, at least 1.

    Raises:
      ValueError: if the trees or the shapes differ, or the period is not positive.
    """
    if not isinstance(update_period, jax.Array) and update_period < 1:
        raise ValueError(f"periodic_update: update_period must be at least 1, got {update_period!r}")
    due = steps % update_period == 0

    def latest(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(due, new.astype(old.dtype), old)

    return kept("periodic_update", _NAMES, latest, new_tensors, old_tensors)
