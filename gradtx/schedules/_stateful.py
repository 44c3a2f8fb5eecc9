# SPDX-License-Identifier: Apache-2.0
"""Schedules with a state: hyperparameters that depend on the course of a run, not only on the step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._types import Numeric


class StatefulSchedule:
    """A hyperparameter with a state of its own, for `inject_hyperparams`: subclass this, or write the same methods.

    At each step the value is `schedule(state, **extra)` and the next state `update(state, **extra)`, where `extra` are
    the extra arguments of the transformation's `update`, such as the loss.
    """

    def init(self) -> Any:
        """The state before the first step: a tree of arrays."""
        raise NotImplementedError(f"{type(self).__name__}: a stateful schedule needs init() -> state")

    def update(self, state: Any, **extra: Any) -> Any:
        """The state after a step, of the same types."""
        raise NotImplementedError(f"{type(self).__name__}: a stateful schedule needs update(state, **extra) -> state")

    def __call__(self, state: Any, **extra: Any) -> Numeric:
        """The value of the hyperparameter for a state."""
        raise NotImplementedError(f"{type(self).__name__}: a stateful schedule needs __call__(state, **extra) -> value")


class WrappedScheduleState(NamedTuple):
    """The number of steps made."""

    count: jax.Array

    counts_from = {"count": 0}


@dataclasses.dataclass(frozen=True)
class WrappedSchedule(StatefulSchedule):
    """A function of the step as a stateful schedule, whose state is the step.

    It also marks a module as a schedule: `inject_hyperparams` treats functions as schedules, but passes a callable
    module on to the factory.
    """

    schedule_fn: Callable[[Numeric], Numeric]

    def __post_init__(self):
        if not callable(self.schedule_fn):
            raise TypeError(f"WrappedSchedule: schedule_fn must be a function of the step, got {self.schedule_fn!r}")

    def init(self) -> WrappedScheduleState:
        return WrappedScheduleState(jnp.zeros([], jnp.int32))

    def update(self, state: WrappedScheduleState, **extra: Any) -> WrappedScheduleState:
        return WrappedScheduleState(safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra: Any) -> Numeric:
        return self.schedule_fn(state.count)


def is_stateful_schedule(x: Any) -> bool:
    """Whether an object has the three methods of `StatefulSchedule`, whatever its class, such as Optax's."""
    return all(callable(getattr(x, name, None)) for name in ("init", "update", "__call__"))
