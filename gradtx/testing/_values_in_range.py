# SPDX-License-Identifier: Apache-2.0
"""Checks of hyperparameters whose values are known only while a compiled step runs."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from gradtx.core._calls import Value
from gradtx.core._checked import checked
from gradtx.core._counts import step_of
from gradtx.core._kinds import StateTree
from gradtx.core._nesting import inside
from gradtx.core._ranges import Range, at_step, is_number
from gradtx.core._transformation import GradientTransformation, Transformation
from gradtx.core._types import OptState
from gradtx.schedules._schedule import Schedule


@checked
def check_hyperparameters(tx: Transformation, state: StateTree | None = None) -> None:
    """Puts a `checkify.check` for each hyperparameter that is an array, a traced value or a schedule: whether it lies
    in the range that the signature of its factory demands, where NaN lies in none.

    A factory checks numbers at its call, and cannot check traced ones. Call this in the step, before `update`, and run
    the step as `jax.experimental.checkify.checkify(step, errors=checkify.user_checks)`, around or inside of `jit`, with
    scans, `vmap` and `grad` in it. The error names what is wrong: `adam: b1 must be in [0, 1), was 1.5`. A step without
    this call has no checks and no cost.

    Of a schedule it is the value at the step of the state that is checked, and of what is inside of
    `inject_hyperparams` the values in the state. Transformations that gradtx did not make are not looked into, nor what
    the rules of `groups` change.

    Args:
      tx: the transformation.
      state: its state, for the values of schedules and of `inject_hyperparams`; None checks the others only.
    """
    for place, where, name, spec, x in _values(tx, state, ()):
        at = f", at {'.'.join(place)}" if (place := tuple(filter(None, place))) else ""
        legal = spec if spec.endless else spec.of_finite()
        checkify.check(_lies_in(spec, x), f"{where}: {name} must be {legal}, was {{value}}{at}", value=jnp.asarray(x))


def _lies_in(spec: Range, value: Any) -> jax.Array:
    x = jnp.asarray(value)
    above = x > spec.low if spec.low_open else x >= spec.low
    below = x < spec.high if spec.high_open else x <= spec.high
    of_its_kind = x == jnp.round(x) if spec.whole else spec.endless | jnp.isfinite(x)
    return jnp.all(above & below & of_its_kind)


Found = tuple[tuple[str, ...], str, str, Range, Any]
"""The steps to a transformation, the name of its factory and of the hyperparameter, the range, and the value."""


def _values(tx: Any, state: OptState, place: tuple[str, ...]) -> Iterator[Found]:
    if not isinstance(tx, GradientTransformation):
        return
    step = None if state is None else _step(tx, state)
    yield from ((place, *found) for found in _of_call(tx, step))
    for path, child, part in _inside(tx, state):
        yield from _values(child, part, (*place, path))


def _of_call(value: Value, step: Any) -> Iterator[tuple[str, str, Range, Any]]:
    """The hyperparameters of a call, and of schedules among its arguments, that are not numbers."""
    if value.factory is None:
        return
    for name, x in value.arguments.items():
        for schedule in filter(lambda leaf: isinstance(leaf, Schedule), jax.tree.leaves(x, is_leaf=_is_schedule)):
            yield from _of_call(schedule, None)
        if name not in value.factory.hyperparameters or x is None or is_number(x) or callable(x) and step is None:
            continue
        where, spec = value.factory.name, value.factory.specs[name]
        yield where, name, spec, at_step(f"{where}: {name}", x, step)  # type: ignore[misc]  # a range, as it is numeric


def _is_schedule(x: Any) -> bool:
    return isinstance(x, Schedule)


def _inside(tx: Any, state: OptState) -> Iterator[tuple[str, Any, OptState]]:
    """The transformations that were given to another one, with the steps to them and their states."""
    given = [child for _, child in inside(tx.arguments)]
    if state is None:
        yield from ((str(i), child, None) for i, child in enumerate(given))
        return
    for path, (child, part) in tx.expanded.parts(state).items():
        if tx.expanded is tx or any(child is x for x in given):
            yield path, child, part
        elif isinstance(child, GradientTransformation):  # a stage that the recipe made, around one that it was given
            yield from ((f"{path}.{rest}", x, y) for rest, x, y in _inside(child, part) if any(x is g for g in given))


def _step(tx: Any, state: OptState) -> Any:
    """The step that the state has counted; of a recipe, one of its stages."""
    if (step := step_of(state)) is not None or tx.expanded is tx:
        return step
    parts = tx.expanded.parts(state).values()
    return next((n for x, y in parts if isinstance(x, GradientTransformation) and (n := _step(x, y)) is not None), None)
