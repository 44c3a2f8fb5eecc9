# SPDX-License-Identifier: Apache-2.0
"""Replacing hyperparameters of a transformation, by one value or by a value for each group."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._calls import Value
from gradtx.core._nesting import Keys, chained, inside, with_others_inside
from gradtx.core._ranges import at_step, is_array

Path = tuple[str, ...]


class Times:
    """The entry of one group that is a multiple of the base's value."""

    def __init__(self, factor: float):
        self.factor = float(factor)


def find_argument(tx: Any, name: str) -> tuple[Path, str]:
    """Where in a transformation the argument of this name is: the steps to the stage that has it, and the bare name.

    The name may be preceded by steps, joined by dots: the number or name of a chain's stage, the argument of a wrapper.

    Raises:
      ValueError: if there is none, or more than one.
    """
    found = [(path, n) for path, n in _arguments(tx, ()) if n == name or ".".join((*path, n)) == name]
    # An argument of a recipe or wrapper comes before those of the same name further inside.
    outer = [x for x in found if not any(y[0] != x[0] and x[0][: len(y[0])] == y[0] for y in found)]
    if len(outer) == 1:
        return outer[0]
    if outer:
        several = ", ".join(repr(".".join((*path, n))) for path, n in outer)
        raise ValueError(f"groups: the base has more than one {name}: say which, {several}")
    if not isinstance(tx, Value) or tx.factory is None:
        raise ValueError(
            f"groups: the base was not made by a factory of gradtx, so that its {name} cannot be told apart, got {tx!r}"
        )
    there = dict.fromkeys(n for _, n in _arguments(tx, ()))
    raise ValueError(f"groups: the base has no argument {name}; there are {', '.join(there) or 'none'}")


def _arguments(tx: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if not isinstance(tx, Value) or tx.factory is None:
        return
    if tx.factory.name == "groups":  # a parameter has one group: inside of inner groups, theirs
        return
    children = list(_children(tx))
    holding = {keys[0].key for _, keys, _ in children}
    yield from ((path, name) for name in tx.arguments if name not in holding)
    for step, _, child in children:
        yield from _arguments(child, (*path, step))


def _children(tx: Any) -> Iterator[tuple[str, Keys, Any]]:
    """The transformations in an argument, with their names as steps of a path."""
    stages = [str(key) for key, _ in chained(tx) or ()]
    for keys, child in inside(tx.arguments):
        argument, *rest = keys
        yield stages[rest[0].idx] if stages else argument.key + jax.tree_util.keystr(tuple(rest)), keys, child


def value_at(tx: Any, path: Path, name: str) -> Any:
    """The argument's value."""
    return _at(tx, path).arguments[name]


def is_hyperparameter(tx: Any, path: Path, name: str) -> bool:
    """Whether the argument is a hyperparameter: a number, which may differ between the parameters of one rule."""
    return name in _at(tx, path).factory.hyperparameters


def _at(tx: Any, path: Path) -> Any:
    for step in path:
        tx = next(child for name, _, child in _children(tx) if name == step)
    return tx


def replaced(tx: Any, path: Path, name: str, value: Any) -> Any:
    """The transformation with another value of that argument."""
    if not path:
        return tx.replace(**{name: value})
    there, child = next((keys, child) for step, keys, child in _children(tx) if step == path[0])
    new = replaced(child, path[1:], name, value)
    return tx.replace(**with_others_inside(tx.arguments, lambda keys, x: new if keys == there else x))


def with_entries(tx: Any, path: Path, name: str, entries: Sequence[Any]) -> Any:
    """The transformation in which a hyperparameter is an array with an entry for each group, or a schedule of these.

    An entry is given as a number, a schedule, `Times`, or None for the present value.
    """
    base = value_at(tx, path, name)
    if callable(base) or any(map(callable, entries)):
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
        base = at_step("groups", self.base, step)
        values = jnp.asarray(base, dtype) * jnp.asarray(factors, dtype)
        own = {i: x for i, x in enumerate(self.entries) if x is not None and not isinstance(x, Times)}
        if own:
            given = jnp.stack([jnp.asarray(at_step("groups", x, step), dtype) for x in own.values()])
            values = values.at[jnp.asarray(list(own), jnp.int32)].set(given)
        return values


def check_scalars(tx: Any) -> None:
    """Raises for hyperparameters that are arrays: arrays stand for values that differ between groups."""
    for path, name in _arguments(tx, ()):
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
