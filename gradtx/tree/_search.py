# SPDX-License-Identifier: Apache-2.0
"""Finding and replacing parts of a tree, such as a state, by name, path and filter.

A key is the name of a field or an entry ("mu"), the name of a named tuple class ("ScaleByAdamState"), or the end of a
path: fields, entries and indices joined by dots, as in `metrics` ("0.mu", "inner_state.0.count"). A key that is a whole
path finds only the part at that path. A filter is a function `filtering(path, value) -> bool`, where the path is a
tuple of JAX's keys, with `NamedTupleKey` for fields.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import NameInTree
from gradtx.core._ranges import is_number
from gradtx.core._sentences import CHOICES, listed

Filter = Callable[[tuple, Any], bool]


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """The key of a field of a named tuple in a path: the names of the class and of the field."""

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


@checked
def get(tree: Any, key: NameInTree, default: Any = None, filtering: Filter | None = None) -> Any:
    """The one part of a tree, such as a state, with this name or path.

    Args:
      key: the name of a field or entry, of a named tuple class, or the end of a path, such as "0.mu".
      default: what to return if nothing is found.
      filtering: a function (path, value) -> bool that a part must satisfy; None for all.

    Raises:
      KeyError: if several parts are found, with their paths: give more of the path, or a filter.
    """
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1:
        several = listed([_dotted(path) for path, _ in found], CHOICES)
        raise KeyError(f"get: {key!r} is at {several}; name one by more of its path, or give a filter")
    return found[0][1] if found else default


@checked
def get_all_with_path(tree: Any, key: NameInTree, filtering: Filter | None = None) -> list[tuple[tuple, Any]]:
    """All (path, part) with this name or path, from the root on; a part may be inside another.

    Args:
      key, filtering: as in `get`.
    """
    found = [(path, x) for path, x in _walk((), tree) if _matches(key, path, x)]
    whole = [(path, x) for path, x in found if _dotted(path) == str(key) and len(path) > 1]
    return [(path, x) for path, x in whole or found if filtering is None or filtering(path, x)]


@checked
def set(tree: Any, filtering: Filter | None = None, /, **kwargs: Any) -> Any:
    """The tree with other values: `set(state, count=0)`, or by path `set(state, **{"0.mu": mu})`.

    All parts that are found are replaced; of parts inside each other, the outer one. A Python number in place of a
    scalar array takes its dtype, so that the types of a state stay.

    Args:
      filtering: as in `get`.
      kwargs: new values, by keys as in `get`.

    Raises:
      KeyError: if a key finds nothing.
    """
    new: dict[tuple, Any] = {}
    for key, value in kwargs.items():
        found = get_all_with_path(tree, key, filtering)
        if not found:
            passing = "" if filtering is None else " that passes the filter"
            names = sorted({_dotted(path[-1:]) for path, _ in _walk((), tree) if path})
            raise KeyError(f"set: there is no {key!r}{passing}; there are {listed(names, CHOICES)}")
        new |= {path: _fitted(value, old) for path, old in found}

    def replaced(path: tuple, x: Any) -> Any:
        if path in new:
            return new[path]
        children, treedef = _children(x)
        if children is None:
            return x
        return jax.tree.unflatten(treedef, [replaced((*path, k), child) for k, child in children])

    return replaced((), tree)


def _walk(path: tuple, x: Any) -> Iterator[tuple[tuple, Any]]:
    """A tree and all its parts with their paths, from the root on."""
    yield path, x
    for key, child in _children(x)[0] or ():
        yield from _walk((*path, key), child)


def _children(x: Any) -> tuple[list | None, Any]:
    """The keys and values one step below, and the structure of that step; None for a leaf."""
    if x is None:
        return None, None
    found, treedef = jax.tree_util.tree_flatten_with_path(x, is_leaf=lambda y: y is not x)
    if treedef == jax.tree.structure(0):
        return None, None
    keys = [path[0] for path, _ in found]
    if _is_named_tuple(x):
        keys = [NamedTupleKey(type(x).__name__, name) for name in x._fields]
    return [(k, child) for k, (_, child) in zip(keys, found, strict=True)], treedef


def _matches(key: Any, path: tuple, x: Any) -> bool:
    if _is_named_tuple(x) and type(x).__name__ == key:
        return True
    if not path:
        return False
    # A dictionary key may contain dots itself.
    wanted, name = str(key), _name(path[-1])
    if "." not in wanted or name == wanted:
        return name == wanted
    return _dotted(path) == wanted or _dotted(path).endswith(f".{wanted}")


def _is_named_tuple(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "_fields")


def _dotted(path: tuple) -> str:
    return ".".join(map(_name, path))


def _name(key: Any) -> str:
    return str(next((getattr(key, n) for n in ("key", "name", "idx") if hasattr(key, n)), key))


def _fitted(value: Any, old: Any) -> Any:
    is_scalar = isinstance(old, jax.Array) and old.shape == () and not jnp.issubdtype(old.dtype, jax.dtypes.extended)
    return jnp.asarray(value, old.dtype) if is_scalar and is_number(value) else value
