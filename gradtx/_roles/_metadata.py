# SPDX-License-Identifier: Apache-2.0
"""Roles from the names of axes that Flax stores with parameters."""

from typing import Any

import jax

from gradtx._roles._inference import Clues, clues, guess, guess_stacks, modules_of
from gradtx.core._checked import checked
from gradtx.core._kinds import ShapesTree
from gradtx.core._roles import Role
from gradtx.core._selectors import is_carrier

PURPOSES = ("stack", "in", "out", "heads")

# The fields in which versions of Flax's nnx keep the names, the newest first.
FIELDS = ("out_sharding", "sharding_names", "sharding")


@checked
def roles_from_names(params: ShapesTree, names: dict[str, str]) -> Any:
    """The roles of parameters from the names of their axes, which Flax keeps in `nn.Partitioned` or nnx variables.

    What the names do not tell, above all the kinds, is guessed as by `infer_roles`. The tree of roles that this returns
    can serve as rules, also for the parameters without their boxes.

    Args:
      params: the parameters with their boxes, the variables of `nnx.state(model, nnx.Param)`, or their shapes.
      names: the purpose of axes by name: "stack", "in", "out" or "heads", as in `{"layers": "stack"}`. Leave out names
        that mean the inputs of one matrix and the outputs of another. A parameter without names is stacked if the named
        parameters in the smallest branch around it are, and it has the same size along the axis.

    Raises:
      ValueError: for a name that no axis has, and for a parameter whose number of names is not its number of axes.
    """
    if not isinstance(names, dict) or not set(names.values()) <= set(PURPOSES):
        raise ValueError(f"roles_from_names: names must map the names of axes to {', '.join(PURPOSES)}, got {names!r}")
    entries, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: x is None or is_carrier(x))
    known: list[Clues | None] = []
    axes: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for path, entry in entries:
        values = jax.tree.leaves(entry)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        known.append(clues(name, values[0]) if values else None)
        if values and (found := names_of_axes(entry)) is not None:
            axes[known[-1].parts] = _checked(name, known[-1], found)  # type: ignore[union-attr]  # there are values
    missing = set(names) - {n for rows in axes.values() for row in rows for n in row}
    if missing:
        there = sorted({n for rows in axes.values() for row in rows for n in row})
        raise ValueError(
            f"roles_from_names: no axis has the name {', '.join(sorted(missing))}; "
            f"the names are {', '.join(there) or 'none: pass the parameters with the boxes or variables around them'}"
        )
    there = [p for p in known if p is not None]
    stacks = _stacks(there, axes, names)
    modules = modules_of(there)
    found = [None if p is None else _role(p, axes.get(p.parts), names, stacks.get(p.parts, ()), modules) for p in known]
    return jax.tree.unflatten(treedef, found)


def names_of_axes(x: Any) -> list[tuple[str, ...]] | None:
    """The names of each axis; None if there are none."""
    if not is_carrier(x):
        return None
    metadata = x.get_metadata() if hasattr(x, "get_metadata") else {"sharding": getattr(x, "names", None)}
    said = next((metadata[n] for n in FIELDS if metadata.get(n) is not None), None)
    said = getattr(said, "spec", said)  # of a sharding
    if said is None:
        return None
    return [(n,) if isinstance(n, str) else tuple(n or ()) for n in said]


def _checked(name: str, p: Clues, found: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    if len(found) != len(p.shape):
        raise ValueError(
            f"roles_from_names: {name}, of shape {p.shape}, has names for {len(found)} axes; if the axis of a stack "
            f"has none, give it one where the layers are stacked, by flax's PARTITION_NAME"
        )
    return found


def _with(purpose: str, axes: list[tuple[str, ...]], names: dict[str, str]) -> tuple[int, ...]:
    """The axes with a name of this purpose, counted from the end."""
    return tuple(i - len(axes) for i, row in enumerate(axes) if any(names.get(n) == purpose for n in row))


def _stacks(parameters: list[Clues], axes: dict, names: dict[str, str]) -> dict:
    if "stack" not in names.values():
        return guess_stacks(parameters)
    found, branches = {}, {}
    for p in parameters:
        if p.parts in axes:
            stack = tuple(i + len(p.shape) for i in _with("stack", axes[p.parts], names))
            found[p.parts] = stack
            for n in range(len(p.parts)):
                branches.setdefault(p.parts[:n], set()).add(tuple((i, p.shape[i]) for i in stack))
    for p in parameters:
        if p.parts not in axes:
            around = next((s for n in reversed(range(len(p.parts))) if (s := branches.get(p.parts[:n]))), set())
            sizes = next(iter(around)) if len(around) == 1 else ()
            if all(i < len(p.shape) and p.shape[i] == size for i, size in sizes):
                found[p.parts] = tuple(i for i, _ in sizes)
    return found


def _role(p: Clues, axes: list | None, names: dict[str, str], stack: tuple[int, ...], modules: set) -> Role:
    if axes is None:
        return guess(p, stack, modules)
    heads = _with("heads", axes, names)
    if len(heads) > 1:
        raise ValueError(f"roles_from_names: {'/'.join(p.parts)} has {len(heads)} axes of heads by its names, {axes}")
    logical = next((sum(j not in stack for j in range(a + len(p.shape), len(p.shape))) for a in heads), None)
    role = guess(p, stack, modules, None if logical is None else -logical)
    inputs, outputs = _with("in", axes, names), _with("out", axes, names)
    if role.kind not in ("hidden", "head", "embedding") or not inputs and not outputs:
        return role
    free = tuple(a for a in (*role.in_axes, *role.out_axes) if a not in (*inputs, *outputs))
    in_axes = inputs or tuple(a for a in free if a in role.in_axes) or free
    out_axes = outputs or tuple(a for a in free if a in role.out_axes) or free
    return Role(role.kind, stack, in_axes, out_axes, role.heads)
