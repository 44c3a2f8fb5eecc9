# SPDX-License-Identifier: Apache-2.0
"""Stages with schedules among their hyperparameters: where the step is kept that the schedules are asked for.

The step is 0 at the first update. A state that counts steps for schedules itself (see `core._counts`) is asked; any
other is put in `ScheduledState`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment, step_of
from gradtx.core._ranges import at_step
from gradtx.core._types import OptState


class ScheduledState(NamedTuple):
    """The state of a stage that has a schedule among its hyperparameters: the step that it is at, and the rest."""

    count: jax.Array
    inner_state: OptState

    counts_from = {"count": 0}


def initial(name: str, moving: dict[str, Any], init: Callable[[dict], OptState]) -> OptState:
    """The state that `init(values)` makes with the values of the hyperparameters at step 0."""
    step = jnp.zeros([], jnp.int32)
    state = init(_at(name, moving, step))
    return ScheduledState(step, state) if step_of(state) is None else state


def values_at(name: str, moving: dict[str, Any], state: OptState) -> dict[str, Any]:
    """The values of the hyperparameters at the step of this state."""
    return _at(name, moving, step_of(state))


def own_state(name: str, state: OptState) -> OptState:
    """The stage's own part of a state; an error if it is none that `initial` made."""
    if step_of(state) is None:
        raise TypeError(
            f"{name}: state must be what init or the last update returned, with a step count, "
            f"got {type(state).__name__}; the order is update(updates, state, params)"
        )
    return state.inner_state if isinstance(state, ScheduledState) else state


def handed_on(state: OptState, own: OptState) -> OptState:
    """What becomes of a state whose own part is now this one."""
    return ScheduledState(safe_increment(state.count), own) if isinstance(state, ScheduledState) else own


def _at(name: str, moving: dict[str, Any], step: Any) -> dict[str, Any]:
    return {n: at_step(f"{name}: {n}", x, step) for n, x in moving.items()}
