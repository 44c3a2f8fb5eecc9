# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: the numbers that stages publish, and the values of schedules."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._counts import step_of
from gradtx.core._transformation import GradientTransformation
from gradtx.core._types import OptState


def metrics(state: OptState, tx: Any = None) -> dict[str, jax.Array]:
    """The scalars that the stages of a state publish, by their paths in it: `{"0.gradient_norm": ..., ...}`.

    A state class publishes scalars by a method `metrics(self) -> {name: scalar}`. Nothing is computed unless this
    function is called. The names never change during a run, so it may be called inside `jit` and `scan`.

    Args:
      tx: the transformation to which the state belongs. If given, the result also has the value of every scheduled
        hyperparameter at the last update, such as "1.learning_rate" (at the first update, if there was none yet).
        Schedules inside transformations of other libraries are not found.
    """
    found = _published(state, "")
    if tx is not None:
        found |= _scheduled(tx, state, "")
    return dict(sorted(found.items()))


def _published(state: Any, path: str) -> dict[str, jax.Array]:
    method = getattr(type(state), "metrics", None)
    found = {} if method is None else {path + name: jnp.asarray(x) for name, x in method(state).items()}
    if hasattr(state, "_fields"):
        children = zip(state._fields, state, strict=True)
    elif isinstance(state, dict):
        children = state.items()
    else:
        children = enumerate(state) if isinstance(state, tuple | list) else ()
    for name, child in children:
        found |= _published(child, f"{path}{name}.")
    return found


def _scheduled(tx: Any, state: Any, path: str) -> dict[str, jax.Array]:
    if not isinstance(tx, GradientTransformation):
        return {}
    names = () if tx.factory is None else tx.factory.hyperparameters
    schedules = {name: x for name in names if callable(x := tx.arguments[name])}
    step, found = step_of(state), {}
    if schedules and step is not None:
        last = jnp.maximum(step - 1, 0)
        found = {path + name: jnp.asarray(schedule(last)) for name, schedule in schedules.items()}
    elif tx.expanded is not tx:  # a recipe passes its schedules on to its stages, which count the steps
        return _scheduled(tx.expanded, state, path)
    for name, (inner, part) in tx.parts(state).items():
        found |= _scheduled(inner, part, f"{path}{name}." if name else path)
    return found
