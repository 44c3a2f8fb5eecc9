# SPDX-License-Identifier: Apache-2.0
"""Prefix trees such as masks and labels: their entries apply to one parameter or to a whole branch of parameters."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gradtx.core._roles import logical_view, unboxed
from gradtx.core._sentences import listed
from gradtx.core._trees import align, is_none, show_path
from gradtx.core._types import Params, Updates


class MaskedNode(NamedTuple):
    """Stands in place of the hidden leaves of a masked tree. It has no leaves, so transformations do not see it."""


def is_function(x: Any) -> bool:
    """Whether an argument is a function of the parameters; a callable module does not count, it is a tree."""
    return callable(x) and (isinstance(x, functools.partial) or jax.tree_util.all_leaves([x]))


class Rows(NamedTuple):
    """The leaves of a tree of updates, None included, with the parameter and the prefix entry of each."""

    given: Updates
    treedef: Any
    updates: list
    params: list | None
    entries: list

    def tree(self, leaves: list, seen: list[bool]) -> Any:
        """The tree with these leaves, where those that are not seen are hidden."""
        shown = [x if s else MaskedNode() for x, s in zip(leaves, seen, strict=True)]
        return jax.tree.unflatten(self.treedef, shown)

    def merged(self, where: str, new: Updates, seen: list[bool], others: list) -> list:
        """The new leaves where they were seen, the others elsewhere."""
        leaves = align(self.treedef, new, where, "the updates of the inner transformation", new, "the gradients")
        return [n if s else x for n, s, x in zip(leaves, seen, others, strict=True)]

    def whole(self, leaves: list) -> Updates:
        """The tree with these leaves, in the structure of the updates that were given."""
        tree = jax.tree.unflatten(self.treedef, leaves)
        return jax.tree.map(lambda g, u: None if g is None else u, self.given, tree, is_leaf=is_none)


def filled(tree: Any, whole: Any) -> Any:
    """A tree in which leaves are hidden, with those of `whole` in their places; anything else as it is."""
    leaves, treedef = jax.tree.flatten(whole, is_leaf=is_none)
    try:
        parts = treedef.flatten_up_to(tree)
    except (ValueError, TypeError):
        return tree
    hidden = [x is not None and is_empty(x) for x in parts]
    return treedef.unflatten([w if h else x for x, w, h in zip(parts, leaves, hidden, strict=True)])


def of_whole(function: Callable[..., Any], whole: Any, hide: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function of whole trees as one of trees in which leaves are hidden; trees that it returns are hidden too."""

    @functools.wraps(function)  # with its signature, which tells what further arguments it takes
    def of_seen(*args: Any, **kwargs: Any) -> Any:
        return hide(function(*(filled(x, whole) for x in args), **{n: filled(x, whole) for n, x in kwargs.items()}))

    return of_seen


def of_boxes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a function of the parameters that takes them in boxes, with their roles."""
    function.of_boxes = True  # type: ignore[attr-defined]  # a function attribute
    return function


def said_of(prefix: Any, tree: Any) -> Any:
    """The prefix itself, or the result of a function, which gets logical parameters unless it asks for boxes."""
    if not is_function(prefix):
        return prefix
    return prefix(tree if getattr(prefix, "of_boxes", False) else logical_view(tree))


def rows(where: str, name: str, prefix: Any, updates: Updates, params: Params, is_entry: Callable[..., Any]) -> Rows:
    """The leaves with the entry that a prefix, or a function that makes one, has for each; see `spread`."""
    reference = updates if params is None else params
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    ps = None
    if params is not None:
        ps = align(treedef, params, where, "the parameters", updates, "the gradients")
        # One None may stand for a branch of parameters, only a part of which is hidden.
        branches = [jax.tree.map(lambda _: None, p) if g is None else g for g, p in zip(leaves, ps, strict=True)]
        leaves, treedef = jax.tree.flatten(jax.tree.unflatten(treedef, branches), is_leaf=is_none)
        ps = treedef.flatten_up_to(params)
    said = said_of(prefix, reference)
    entries = treedef.flatten_up_to(spread(where, name, said, reference, is_entry))
    return Rows(updates, treedef, leaves, ps, entries)


def spread(where: str, name: str, prefix: Any, tree: Any, is_entry: Callable[..., Any]) -> Any:
    """The tree with each leaf (None too) replaced by the entry that the prefix has for it or for its branch.

    If the prefix has other container types than the tree, such as a dictionary for the state of a module, it is matched
    by the names on the paths.

    Raises:
      ValueError: if a leaf has no entry or an entry no leaf, with the paths.
    """

    def leaf_of_prefix(x: Any) -> bool:
        return x is None or is_entry(x)

    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    tree = unboxed(tree)
    entries, prefix_def = jax.tree.flatten(prefix, is_leaf=leaf_of_prefix)
    try:
        branches = prefix_def.flatten_up_to(tree)
    except (ValueError, TypeError):
        said = None
    else:
        counts = [len(jax.tree.leaves(branch, is_leaf=is_none)) for branch in branches]
        said = [e for e, n in zip(entries, counts, strict=True) for _ in range(n)]
    if said is None or any(e is None and x is not None and not is_entry(e) for e, x in zip(said, leaves, strict=True)):
        known = jax.tree_util.tree_flatten_with_path(prefix, is_leaf=is_entry)[0]
        said = _by_names(where, name, known, tree)
    return jax.tree.unflatten(treedef, said)


def _by_names(where: str, name: str, known: list, tree: Any) -> list:
    """The entry for each leaf, found by the names on its path, whatever the container types."""
    by_names = {tuple(map(_name, path)): (path, entry) for path, entry in known}
    found, used, holes, lacking = [], set(), set(), []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_empty)[0]:
        names = tuple(map(_name, path))
        at = next((p for p in _beginnings(names) if p in by_names), None)
        used.add(at)
        if is_empty(leaf):
            holes.add(names)
        elif at is None:
            lacking.append(show_path(path))
        if leaf is None or not is_empty(leaf):
            found.append(None if at is None else by_names[at][1])
    unused = [
        show_path(path)
        for names, (path, _) in by_names.items()
        if names not in used and holes.isdisjoint(_beginnings(names))
    ]
    if lacking or unused:
        faults = [f"nothing for {listed(lacking)}"] if lacking else []
        faults += [f"an entry at {listed(unused)}, where there is no parameter"] if unused else []
        raise ValueError(f"{where}: the trees do not match: {name} has {' and '.join(faults)}")
    return found


def is_empty(x: Any) -> bool:
    """Whether this is None or a masked node, gradtx's or Optax's, which is another class."""
    return x is None or isinstance(x, tuple) and not x and hasattr(x, "_fields")


def is_partial(params: Params) -> bool:
    """Whether parameters may be hidden in this tree, so that a choice that matches none is no error."""
    nodes = jax.tree.leaves(params, is_leaf=is_empty)
    return not jax.tree.leaves(params) or any(x is not None and is_empty(x) for x in nodes)


def _beginnings(names: tuple) -> list[tuple]:
    """The path itself and all its prefixes, the longest first."""
    return [names[:n] for n in range(len(names), -1, -1)]


def _name(key: Any) -> Any:
    """The name of one element of a path: the same for an attribute, a key or an index."""
    return next((getattr(key, n) for n in ("key", "name", "idx") if hasattr(key, n)), key)
