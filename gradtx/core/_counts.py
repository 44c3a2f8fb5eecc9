# SPDX-License-Identifier: Apache-2.0
"""Step counts, which saturate instead of wrapping around and can be found and set in any state.

A state class that counts steps for schedules declares them as `counts_from`, a dictionary from the names of its count
fields to their values before the first update: `counts_from = {"count": 0}`. A count that only gives the age of an
average, such as that of `ScaleByAdamState`, is not declared.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._calling import compiled_outside
from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, StateTree
from gradtx.core._ranges import is_array, is_number
from gradtx.core._types import Numeric, OptState


@checked
def safe_increment(count: ArrayLike) -> jax.Array:
    """`count + 1`, or `count` if its dtype cannot hold the sum.

    Args:
      count: a scalar (or array) of any real dtype; the dtype is kept.

    Raises:
      TypeError: for conditions and complex numbers, which do not count.
    """
    if not isinstance(count, jax.Array):  # to make sure of one that is takes longer than the sum, at each update
        count = jnp.asarray(count)
    if count.dtype.kind in "bc":
        raise TypeError(f"safe_increment: count must be whole numbers or floats, got {count.dtype}")
    return _incremented(count)


@compiled_outside
def _incremented(count: jax.Array) -> jax.Array:
    # One more than the largest whole number wraps around to the smallest: the count stays where it is.
    return jax.lax.max(jax.lax.add(count, np.ones([], count.dtype)), count)


def in_place_of(state: OptState, fresh: OptState) -> OptState:
    """A fresh state that takes the place of another: a count that has an entry for each parameter keeps them."""

    def alike(new: Any, old: Any) -> Any:
        return new if jnp.shape(new) == jnp.shape(old) else jnp.broadcast_to(new, jnp.shape(old))

    return jax.tree.map(alike, fresh, state)


def step_of(state: Any) -> jax.Array | None:
    """The number of updates that a state has counted for schedules; None if it counts none."""
    for name, start in getattr(type(state), "counts_from", {}).items():
        count = getattr(state, name)
        return count - start if start else count
    return None


@checked
def restart(state: StateTree, at: Numeric) -> OptState:
    """The state with every step count set to `at`, so that the next update evaluates all schedules at that step.

    Counts are found in chains, masks and wrappers. Moments and other averages are kept with their age, so that bias
    corrections stay right. `restart(tx.init(params), at=1000)` starts schedules in their middle, `restart(state, at=0)`
    is a warm restart. In a state that, as in Optax, has one count for both, such as that of `momo(schedule)`, the age
    changes too.

    Args:
      at: the number of updates to count as made, at least 0; may be traced.

    Raises:
      TypeError: for what is no number.
      ValueError: for a negative or fractional number, or one that a count of the state cannot hold.
    """
    if not isinstance(at, Tracer):
        if not (is_number(at) or is_array(at)):
            raise TypeError(f"restart: at must be a whole number of at least 0, got {at!r} ({type(at).__name__})")
        # A Python number: arrays are compared with numbers of their own dtype only, if promotion is strict.
        value = at.item() if is_array(at) and jnp.ndim(at) == 0 else at  # type: ignore[attr-defined]  # of arrays
        if jnp.ndim(value) != 0 or not 0 <= value < math.inf or value != int(value):
            raise ValueError(f"restart: at must be a whole number of at least 0, got {at!r}")
        at = int(value)
    return _restarted(state, at)


def _restarted(state: Any, at: Any) -> Any:
    fresh = {
        # A variable of Flax's nnx around the count stays.
        name: jax.tree.map(lambda x, name=name, start=start: _count(name, at, start, x.dtype), getattr(state, name))
        for name, start in getattr(type(state), "counts_from", {}).items()
    }
    if hasattr(state, "_fields"):
        kept = {name: _restarted(getattr(state, name), at) for name in state._fields if name not in fresh}
        return state._replace(**kept, **fresh)
    if isinstance(state, tuple | list):
        return type(state)(_restarted(x, at) for x in state)
    if isinstance(state, dict):
        # A copy keeps the kind of dictionary and its order.
        copy = state.copy()
        copy.update({k: _restarted(x, at) for k, x in state.items()})
        return copy
    return state


def _count(name: str, at: Any, start: int, dtype: Any) -> jax.Array:
    """The value of a count field after `at` updates."""
    if isinstance(at, Tracer):
        return jnp.asarray(at, dtype) + start
    if jnp.issubdtype(dtype, jnp.integer) and at + start > jnp.iinfo(dtype).max:
        largest = jnp.iinfo(dtype).max - start
        raise ValueError(f"restart: at must be at most {largest}, since {name} is {dtype}; got {at}")
    return jnp.asarray(at + start, dtype)
