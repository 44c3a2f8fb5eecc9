# SPDX-License-Identifier: Apache-2.0
"""Step counts: they saturate instead of wrapping, and are found and set in any state.

A state class that counts steps for schedules says so with `counts_from`, a dict from the names of its count fields to
their values before the first update: `counts_from = {"count": 0}`. A count that only says how old an average is, such
as that of `ScaleByAdamState`, is not one of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core._types import Numeric, OptState


def safe_increment(count: jax.Array) -> jax.Array:
    """`count + 1`, or `count` when its dtype could not hold that.

    Args:
      count: a scalar (or array) of any real dtype; the dtype is kept.
    """
    count = jnp.asarray(count)
    kind = jnp.iinfo if jnp.issubdtype(count.dtype, jnp.integer) else jnp.finfo
    return jnp.minimum(count, kind(count.dtype).max - 1) + jnp.ones([], count.dtype)


def step_of(state: Any) -> jax.Array | None:
    """The number of updates that a state has counted for schedules; None if it counts none."""
    for name, start in getattr(type(state), "counts_from", {}).items():
        count = getattr(state, name)
        return count - start if start else count
    return None


def restart(state: OptState, at: Numeric) -> OptState:
    """The state with every step count set to `at`: the next update reads all schedules at that step.

    It goes through chains, masks and wrappers. Moments and other averages are kept, and so is their age: bias
    corrections go on being right. `restart(tx.init(params), at=1000)` starts the schedules in their middle,
    `restart(state, at=0)` is a warm restart.
    Exceptions are states with Optax's one count for both, such as that of `momo(schedule)`: there the age moves too.

    Args:
      at: the number of updates that count as made, at least 0; may be traced.

    Raises:
      ValueError: for a negative or fractional number.
    """
    if not isinstance(at, Tracer) and (jnp.ndim(at) != 0 or at < 0 or at != int(at)):
        raise ValueError(f"restart: at must be a whole number of at least 0, got {at!r}")
    return _restarted(state, at)


def _restarted(state: Any, at: Any) -> Any:
    fresh = {
        name: jnp.asarray(at, getattr(state, name).dtype) + start
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
