# SPDX-License-Identifier: Apache-2.0
"""Replacing hyperparameters of a transformation, by one value or by a value for each group."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx._groups._factors import multiplied
from gradtx.core._calls import Value
from gradtx.core._nesting import Path, arguments_inside, arguments_named, inside, replaced, spelled, stage_at
from gradtx.core._ranges import at_step, is_array, is_number


class Times:
    """The entry of one group that is a multiple of the base's value, by a number, an array or a schedule."""

    def __init__(self, factor: Any):
        self.factor = factor


def find_argument(tx: Any, name: str) -> tuple[Path, str]:
    """Where in a transformation the argument of this name is: the steps to the stage that has it, and the bare name.

    Raises:
      ValueError: if there is none, or more than one.
    """
    found = arguments_named(tx, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"groups: the base has more than one {name}: say which, {spelled(found)}")
    if not isinstance(tx, Value) or tx.factory is None:
        raise ValueError(
            f"groups: the base was not made by a factory of gradtx, so that its {name} cannot be told apart, got {tx!r}"
        )
    there = dict.fromkeys(n for _, n in arguments_inside(tx))
    raise ValueError(f"groups: the base has no argument {name}; there are {', '.join(there) or 'none'}")


def value_at(tx: Any, path: Path, name: str) -> Any:
    """The argument's value."""
    return stage_at(tx, path).arguments[name]


def is_hyperparameter(tx: Any, path: Path, name: str) -> bool:
    """Whether the argument is a hyperparameter: a number, which may differ between the parameters of one rule."""
    return name in stage_at(tx, path).factory.hyperparameters


def second_rates(tx: Any, path: Path, name: str) -> list[str]:
    """The other learning rates of a recipe beside the argument `learning_rate`, such as `adam_learning_rate`."""
    recipe = stage_at(tx, path)
    others = [n for n in recipe.factory.hyperparameters if name == "learning_rate" and n.endswith("_learning_rate")]
    is_rate = recipe.factory.specs[name].__eq__  # what bounds a rate, such as `max_learning_rate`, is positive
    return [n for n in others if is_rate(recipe.factory.specs[n]) and recipe.arguments[n] is not None]


def with_entries(tx: Any, path: Path, name: str, entries: Sequence[Any]) -> Any:
    """The transformation in which a hyperparameter is an array with an entry for each group, or a schedule of these.

    An entry is given as a number, a schedule, `Times`, or None for the present value.
    """
    base = value_at(tx, path, name)
    if any(stage_at(tx, path[:n]).factory.name == "groups" for n in range(len(path))):
        return replaced(tx, path, name, GroupSchedule(base, tuple(entries)))  # for `inherited` there
    if callable(base) or any(callable(x.factor if isinstance(x, Times) else x) for x in entries):
        return replaced(tx, path, name, GroupSchedule(base, tuple(entries)))
    found = [_entry(base, x) for x in entries]
    if any(isinstance(x, Tracer) for x in found):
        return replaced(tx, path, name, jnp.stack([jnp.asarray(x, jnp.result_type(float)) for x in found]))
    # A NumPy array: inside of a trace, an array of JAX would be a tracer.
    return replaced(tx, path, name, np.array([float(x) for x in found], np.float64))


def _entry(base: Any, x: Any) -> Any:
    return base if x is None else base * x.factor if isinstance(x, Times) else x


class GroupSchedule:
    """A function of the step whose values are arrays with an entry for each group."""

    def __init__(self, base: Any, entries: tuple):
        self.base, self.entries = base, entries

    def __call__(self, step: jax.Array) -> jax.Array:
        dtype = jnp.result_type(float)
        factors = [1.0 if x is None else x.factor if isinstance(x, Times) else 0.0 for x in self.entries]
        factors = [_scalar_at(x, step) for x in factors]
        constant = all(map(is_number, factors))
        factors = factors if constant else jnp.stack([jnp.asarray(x, dtype) for x in factors])
        base = _scalar_at(self.base, step)
        values = jnp.asarray(base, dtype) * jnp.asarray(factors, dtype)
        own = {i: x for i, x in enumerate(self.entries) if x is not None and not isinstance(x, Times)}
        if own:
            given = jnp.stack([jnp.asarray(_scalar_at(x, step), dtype) for x in own.values()])
            values = values.at[jnp.asarray(list(own), jnp.int32)].set(given)
        return values


def _scalar_at(x: Any, step: jax.Array) -> Any:
    """The value at this step of what is one number for all parameters of a group."""
    value = at_step("groups", x, step)
    if jnp.ndim(value):
        name = getattr(x, "__qualname__", "a schedule")  # a repr may be of any length
        raise ValueError(f"groups: {name} must be a scalar at each step, got shape {jnp.shape(value)}")
    return value


def inherited(tx: Any) -> dict[tuple[Path, str], GroupSchedule]:
    """The hyperparameters that groups around these ones have given other values for some parameters."""
    found = {(path, name): value_at(tx, path, name) for path, name in arguments_inside(tx)}
    return {argument: value for argument, value in found.items() if isinstance(value, GroupSchedule)}


def without_inherited(tx: Any) -> Any:
    """The transformation with the values that it had before groups around these ones changed them."""
    for (path, name), value in inherited(tx).items():
        tx = replaced(tx, path, name, value.base)
    return tx


def over(outer: Any, inner: Any) -> Any:
    """The entry that results where groups inside say `inner`, and groups around them `outer`."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    if not isinstance(outer, Times):
        return outer
    if isinstance(inner, Times):
        return Times(multiplied(outer.factor, inner.factor))
    return multiplied(inner, outer.factor)


def holds_tracers(*trees: Any) -> bool:
    """Whether there is a tracer among the numbers of rules and transformations, or in what they have inherited."""
    given = [x.factor if isinstance(x, Times) else x for tx in trees for s in inherited(tx).values() for x in s.entries]
    return any(isinstance(x, Tracer) for x in jax.tree.leaves((trees, given)))


def check_scalars(tx: Any) -> None:
    """Raises for hyperparameters that are arrays: arrays stand for values that differ between groups."""
    for path, name in arguments_inside(tx):
        value = value_at(tx, path, name)
        if is_hyperparameter(tx, path, name) and is_array(value) and jnp.ndim(value):
            raise ValueError(
                f"groups: {'.'.join((*path, name))} of the base must be a scalar at each step, got shape "
                f"{jnp.shape(value)}; to train a population, jax.vmap over the transformation"
            )


def check_reach(tx: Any) -> None:
    """Raises if a value differs between groups in a stage that does not work on single parameters."""
    if not isinstance(tx, Value) or tx.factory is None:
        return
    stage = tx.expanded  # type: ignore[attr-defined]  # values that are transformations have it
    if stage.rule is not None:
        return
    for name in stage.factory.hyperparameters if stage.factory else ():
        value = stage.arguments[name]
        if isinstance(value, GroupSchedule) or is_array(value) and jnp.ndim(value):
            raise ValueError(
                f"groups: {name} cannot differ between groups, as {stage.factory.name} works on the tree as a whole; "
                f"give those parameters a transformation of their own"
            )
    for _, child in inside(stage.arguments):
        check_reach(child)
