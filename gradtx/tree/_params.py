# SPDX-License-Identifier: Apache-2.0
"""Mapping a function over the leaves of a state that belong to parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._nesting import is_factory
from gradtx.core._trees import align, is_none
from gradtx.core._types import OptState


class _Parameters(NamedTuple):
    """A placeholder for a tree of parameters: `init(_Parameters())` has it wherever a state has a tree like them.

    It is an empty named tuple, like the nodes that masks put in place of hidden parameters, so that masks and labels do
    not look for names in it.
    """


@checked
def map_params(
    initable: Any,
    f: Callable[..., Any],
    state: OptState,
    /,
    *rest: Any,
    transform_non_params: Callable[..., Any] | None = None,
    is_leaf: Callable[..., Any] | None = None,
    params: Any = None,
) -> OptState:
    """The state with `f(leaf, *rest leaves)` in place of each leaf that belongs to a parameter.

    A parameter may have several leaves in one tree of the state (SM3's covers), which all get the same leaf of `rest`,
    or none (masked). Masked nodes and None stay, unless `is_leaf` makes them leaves.

    Args:
      initable: the transformation of the state, or its `init`.
      f: a function of a leaf of the state and the leaves of `rest` for its parameter.
      rest: trees like the parameters, such as shardings; None is a leaf of them.
      transform_non_params: a function of each other leaf, such as counts; None leaves them as they are.
      is_leaf: as in `jax.tree.map`, for the trees of the state.
      params: the parameters or their shapes. If given, `f` is applied only to leaves with the shape of their parameter;
        factored moments and memories of past steps then count among the other leaves.

    Raises:
      ValueError: if the state is not of this transformation, or `rest` is not like the parameters.
    """
    init = getattr(initable, "init", initable)
    if not callable(init) or is_factory(initable):
        raise TypeError(f"map_params: initable must be a transformation or an init function, got {initable!r}")
    made = init(_Parameters())
    # A part without a placeholder counts as one leaf, since its structure may depend on the parameters: `flatten` makes
    # vectors of their leaves, and here there are none.
    layout, treedef = jax.tree.flatten(made, is_leaf=lambda x: _is_place(x) or not _has_place(x))
    parts = align(treedef, state, "map_params", "the state's trees", made, "what init returns")
    other = transform_non_params or (lambda x: x)

    def mapped(part: Any) -> Any:
        leaves, structure = jax.tree.flatten(part, is_leaf=is_leaf)
        rows = _rows(part, structure, rest, params, is_leaf)
        new = [f(x, *r) if _fits(x, p) else other(x) for x, (p, *r) in zip(leaves, rows, strict=True)]
        return jax.tree.unflatten(structure, new)

    new = [mapped(x) if _is_place(place) else jax.tree.map(other, x) for place, x in zip(layout, parts, strict=True)]
    return jax.tree.unflatten(treedef, new)


def _is_place(x: Any) -> bool:
    return isinstance(x, _Parameters)


def _has_place(x: Any) -> bool:
    return any(map(_is_place, jax.tree.leaves(x, is_leaf=_is_place)))


def _rows(part: Any, structure: Any, rest: tuple, params: Any, is_leaf: Callable | None) -> list[tuple]:
    """For each leaf of a tree like the parameters: its parameter (None: unknown) and its leaves of `rest`."""
    if params is None and rest:
        try:  # with a leaf for each parameter in the state's tree, `rest` may hold any objects there
            held = jax.tree.structure(part, is_leaf=lambda x: _is_empty(x) or (is_leaf is not None and is_leaf(x)))
            columns = [held.flatten_up_to(tree) for tree in rest]
        except (ValueError, TypeError):
            pass
        else:
            places = held.flatten_up_to(part)
            kept = [i for i, x in enumerate(places) if not _is_empty(x) or (is_leaf is not None and is_leaf(x))]
            return [(None, *(column[i] for column in columns)) for i in kept]
    guide = params if params is not None else rest[0] if rest else None
    if guide is None:
        return [(None,)] * structure.num_leaves
    leaves, treedef = jax.tree.flatten(guide, is_leaf=is_none)
    name = "the parameters" if params is not None else "rest[0]"
    columns = [align(treedef, x, "map_params", f"rest[{i}]", guide, name) for i, x in enumerate(rest)]
    branches = align(treedef, part, "map_params", "the state's trees", guide, name)
    counts = [len(jax.tree.leaves(branch, is_leaf=is_leaf)) for branch in branches]
    heads = leaves if params is not None else [None] * len(leaves)
    return [tuple(row) for n, *row in zip(counts, heads, *columns, strict=True) for _ in range(n)]


def _is_empty(x: Any) -> bool:
    """None, or a masked node, of gradtx's class or another library's."""
    return x is None or isinstance(x, tuple) and not x and hasattr(x, "_fields")


def _fits(x: Any, p: Any) -> bool:
    return p is None or jnp.shape(x) == jnp.shape(p)
