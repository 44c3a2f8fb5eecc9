# SPDX-License-Identifier: Apache-2.0
"""The parts of a state: which arrays it holds for which parameter, in which field of which stage."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._evaluation import holds_state
from gradtx.core._payloads import is_payload
from gradtx.core._selectors import named_leaves
from gradtx.core._transformation import GradientTransformation
from gradtx.core._trees import is_none
from gradtx.core._unwrapping import children, unwrapped

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """What a field of a state holds for one parameter, or an array of the state that belongs to none.

    Attributes:
      stage: the path to the state of the stage: the innermost named tuple that holds it, or item of a tuple.
      kind: the name of the stage's class; empty if it has none of its own.
      field: the path from there to the tree of the slot, or to the array.
      parameter: the path of the parameter; None if it belongs to none.
      value: an array, or the arrays of a codec or a factored rule.
      start: the position of its first leaf among the leaves of the state.
    """

    stage: tuple
    kind: str
    field: tuple
    parameter: tuple | None
    value: Any
    start: int

    @property
    def stop(self) -> int:
        return self.start + len(jax.tree.leaves(self.value))

    @property
    def key(self) -> tuple:
        """What tells a part from the others of its state."""
        return self.stage, self.field, self.parameter

    @property
    def name(self) -> str:
        """The whole path in the state but for the parameter's: `inner_state.0.mu`."""
        return dotted((*self.stage, *self.field))

    @property
    def stage_path(self) -> str:
        return joined(*names(self.stage))

    @property
    def field_path(self) -> str:
        return joined(*names(self.field))


def split(state: Any, params: Any, holders: Iterable[str] = ()) -> Iterator[Part]:
    """The parts of a state in the order of its leaves. A part with the structure of the parameters is a slot.

    The structures are those of the unwrapped trees. What holds states is no slot, even if its keys are the names of the
    parameters, as labels of `partition` may be. It is told by the classes of the states, and where these are not known
    by its path: `holders` are the paths of all that holds states.

    A slot may hold for one parameter an array of any shape, several arrays, or nothing. But if the parameters are one
    array, or tuples or lists, another part of the state could have their structure by coincidence: then only a part
    with arrays of their shapes is a slot.
    """
    state, params, holders = unwrapped(state), unwrapped(params), frozenset(holders)
    keys = [key for path, _ in jax.tree_util.tree_flatten_with_path(params)[0] for key in path]
    by_chance = all(isinstance(key, jax.tree_util.SequenceKey) for key in keys)
    position = 0

    def visit(node: Any, path: tuple, stage: tuple, kind: str) -> Iterator[Part]:
        nonlocal position
        parts = None if dotted(path) in holders else _matched(params, node)
        if parts and by_chance and not all(_is_like(part, p) for _, p, part in parts):
            parts = None
        if parts and any(holds_state(part) for _, _, part in parts):
            parts = None
        if parts is not None:
            for parameter, _, value in parts:
                yield (part := Part(stage, kind, path[len(stage) :], parameter, value, position))
                position = part.stop
            return
        if jax.tree_util.all_leaves([node]):
            yield Part(stage, kind, path[len(stage) :], None, node, position)
            position += 1
            return
        if is_named_tuple(node):
            stage, kind = path, type(node).__name__
        for key, child in children(node):
            here = (*path, key)
            # An item of a tuple is the state of a chain's stage, which need not be a named tuple.
            within = (here, "") if isinstance(key, jax.tree_util.SequenceKey) else (stage, kind)
            yield from visit(child, here, *within)

    return visit(state, (), (), "")


def inner_states(tx: Any, state: Any, path: str = "") -> Iterator[tuple[str, GradientTransformation]]:
    """The paths of the states of the transformations in `tx`, itself included, and these transformations.

    Those of other libraries do not say what is in them.
    """
    if isinstance(tx, GradientTransformation):
        opened = tx.expanded
        yield path, opened
        for key, (inner, part) in opened.parts(state).items():
            yield from inner_states(inner, part, ".".join(x for x in (path, key) if x))


def named_states(tx: Any, state: Any) -> dict[str, str]:
    """The names of the factories of the `inner_states`, empty for what was made by hand."""
    return {path: "" if t.factory is None else t.factory.name for path, t in inner_states(tx, state)}


def holders_of(paths: Iterable[str]) -> frozenset[str]:
    """The paths of all that lies above the states at these paths."""
    return frozenset(path[:end] for path in paths for end in _ends(path))


def is_named_tuple(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "_fields")


def names(path: tuple) -> Names:
    """The keys of a path as text."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def joined(*keys: str) -> str:
    """One path of several; the empty one is the root."""
    return "/".join(key for key in keys if key)


def dotted(path: tuple) -> str:
    """The path of a part of a state, as in `metrics` and `tree.get`: `inner_state.0.mu`."""
    return ".".join(names(path))


def parameter_names(params: Any) -> dict[tuple, str]:
    """The paths of the unwrapped parameters as text, such as `layers/0/kernel`, which globs match."""
    params = unwrapped(params)
    paths = [path for path, x in jax.tree_util.tree_flatten_with_path(params, is_leaf=is_none)[0]]
    return dict(zip(paths, named_leaves(params).names, strict=True))


def _ends(path: str) -> list[int]:
    return [0, *(i for i, character in enumerate(path) if character == ".")] if path else []


def _is_like(part: Any, p: Any) -> bool:
    if is_payload(part):
        return part.fits(jnp.shape(p))
    # If the parameter is a scalar, an integer in the state is more likely a count than its slot.
    if getattr(part, "shape", None) != jnp.shape(p):
        return False
    return jnp.shape(p) != () or jnp.issubdtype(part.dtype, jnp.inexact)


def _matched(params: Any, node: Any, path: tuple = ()) -> list[tuple[tuple, Any, Any]] | None:
    """(path, parameter, value in a node of a state) for each parameter; None if the node has another structure."""
    if not jax.tree.leaves(node):  # None or a masked node, for one parameter or for a whole branch of them
        return []
    if jax.tree_util.all_leaves([params]):
        return [(path, params, node)]
    below, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: x is not params)
    parts, node_treedef = jax.tree.flatten(node, is_leaf=lambda x: x is not node)
    if not below or treedef != node_treedef:
        return None
    found = [_matched(child, part, path + key) for (key, child), part in zip(below, parts, strict=True)]
    return None if None in found else [row for rows in found for row in rows or []]
