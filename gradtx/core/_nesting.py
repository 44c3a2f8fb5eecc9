# SPDX-License-Identifier: Apache-2.0
"""The transformations inside other transformations, as their arguments tell, and the arguments of these."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jax.tree_util import DictKey, SequenceKey, keystr

from gradtx.core._calls import Value

Keys = tuple[Any, ...]
Path = tuple[str, ...]
"""The steps to a stage: the number or name of a chain's stage, the argument of a wrapper."""


def is_transformation(tx: Any) -> bool:
    """Whether an object has functions `init` and `update`, whether it is gradtx's, Optax's or of any other class."""
    return callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None)) and not is_factory(tx)


def is_factory(x: Any) -> bool:
    """Whether this is a function that makes values, such as `adam`, rather than one of these."""
    return inspect.isfunction(x) and hasattr(x, "factory")


def inside(x: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """The transformations in an argument, or in all arguments, with the keys to them; not those inside of these."""
    if is_transformation(x):
        yield keys, x
    elif isinstance(x, Mapping):
        for key, child in x.items():
            yield from inside(child, (*keys, DictKey(key)))
    elif isinstance(x, tuple | list):
        for i, child in enumerate(x):
            yield from inside(child, (*keys, SequenceKey(i)))


def with_others_inside(x: Any, other: Callable[[Keys, Any], Any], keys: Keys = ()) -> Any:
    """The same argument with `other(keys, tx)` in the place of each transformation that `inside` finds."""
    if is_transformation(x):
        return other(keys, x)
    if not any(True for _ in inside(x)):
        return x
    if isinstance(x, Mapping):
        return {key: with_others_inside(child, other, (*keys, DictKey(key))) for key, child in x.items()}
    children = [with_others_inside(child, other, (*keys, SequenceKey(i))) for i, child in enumerate(x)]
    return type(x)(*children) if hasattr(x, "_fields") else type(x)(children)


def chained(tx: Any) -> list[tuple[int | str, Any]] | None:
    """The stages of a chain with their keys in its state; None for everything else."""
    factory = tx.factory if isinstance(tx, Value) else None
    name = "" if factory is None else factory.name
    if name == "chain":
        return list(enumerate(tx.arguments["transformations"]))
    if name == "named_chain":
        return [(key, child) for key, child in tx.arguments["transformations"]]
    return None


def arguments_named(tx: Any, name: str) -> list[tuple[Path, str]]:
    """Where in a transformation the arguments of this name are; the name may be preceded by steps, joined by dots."""
    found = [(path, n) for path, n in arguments_inside(tx) if n == name or ".".join((*path, n)) == name]
    # An argument of a recipe or wrapper comes before those of the same name further inside.
    return [x for x in found if not any(y[0] != x[0] and x[0][: len(y[0])] == y[0] for y in found)]


def spelled(found: list[tuple[Path, str]]) -> str:
    """The full names of arguments, as text."""
    return ", ".join(repr(".".join((*path, name))) for path, name in found)


def arguments_inside(tx: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """The arguments of a transformation and of those inside, but for arguments that hold transformations."""
    if not isinstance(tx, Value) or tx.factory is None:
        return
    if tx.factory.name == "groups":  # the transformations of its rules have other parameters
        yield from arguments_inside(tx.arguments["base"], (*path, "base"))
        return
    children = list(_children(tx))
    holding = {keys[0].key for _, keys, _ in children}
    yield from ((path, name) for name in tx.arguments if name not in holding)
    for step, _, child in children:
        yield from arguments_inside(child, (*path, step))


def stage_at(tx: Any, path: Path) -> Any:
    for step in path:
        tx = next(child for name, _, child in _children(tx) if name == step)
    return tx


def replaced(tx: Any, path: Path, name: str, value: Any) -> Any:
    """The transformation with another value of the argument of this name in the stage at the path."""
    if not path:
        return tx.replace(**{name: value})
    there, child = next((keys, child) for step, keys, child in _children(tx) if step == path[0])
    new = replaced(child, path[1:], name, value)
    return tx.replace(**with_others_inside(tx.arguments, lambda keys, x: new if keys == there else x))


def _children(tx: Any) -> Iterator[tuple[str, Keys, Any]]:
    """The transformations in an argument, with their names as steps of a path."""
    stages = [str(key) for key, _ in chained(tx) or ()]
    for keys, child in inside(tx.arguments):
        argument, *rest = keys
        yield stages[rest[0].idx] if stages else argument.key + keystr(tuple(rest)), keys, child
