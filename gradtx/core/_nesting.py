# SPDX-License-Identifier: Apache-2.0
"""The transformations inside other transformations, as their arguments tell."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jax.tree_util import DictKey, SequenceKey

from gradtx.core._calls import Value
from gradtx.core._transformation import is_transformation

Keys = tuple[Any, ...]


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
