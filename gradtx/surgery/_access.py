# SPDX-License-Identifier: Apache-2.0
"""Finding, reading, setting and resetting the slots of a state.

A parameter is named by its path, such as "layers/0/kernel", and a slot by its path in the state or the end of it, such
as "mu", "0.mu" or "inner_state.0.mu".
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ShapesTree, StateTree, Texts
from gradtx.core._selectors import Where, check_where, described, known_paths, matches, what_instead
from gradtx.core._sentences import CHOICES, listed
from gradtx.core._transformation import check_transformation
from gradtx.core._trees import shapes_of
from gradtx.core._types import OptState, Params
from gradtx.core._unwrapping import unwrapped
from gradtx.surgery._ages import aged, count_of, is_ages, rules_of
from gradtx.surgery._slots import Part, holders_of, inner_states, parameter_names, split


@dataclasses.dataclass(frozen=True, eq=False)
class StateSlot:
    """What a state holds for one parameter in one slot: an array, or several for factored and packed slots."""

    parameter: str
    name: str
    value: Any
    part: Part = dataclasses.field(repr=False)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(self.value))
        return f"StateSlot({self.parameter or '(root)'}, {self.name}: {shapes})"


@checked
def find_slots(
    state: StateTree, params: Params, where: Where | None = None, slot: Texts | None = None
) -> list[StateSlot]:
    """The slots of a state that belong to the parameters that `where` chooses.

    Args:
      params: the parameters of the state, or their shapes.
      where: a glob on the path, a compiled regular expression, a function of path and parameter, or a tuple of these;
        see `gradtx.where`. None for all parameters.
      slot: a name, or several: "mu", or with more of its path in the state, "0.mu". None for all slots.

    Raises:
      ValueError: for a path or a slot that does not exist, with those that do.
    """
    return _found("find_slots", state, params, where, slot)


@checked
def get_slot(state: StateTree, params: Params, path: str, slot: str) -> Any:
    """The slot of the parameter at a path: `get_slot(state, params, "layers/0/kernel", "mu")`.

    Args:
      params: the parameters of the state, or their shapes.
      path: the path of the parameter, "" if the parameters are one array.
      slot: the name of the slot, or the end of its path in the state, such as "0.mu".

    Raises:
      ValueError: if there is no such slot, or if several have that name: give more of its path, "0.mu".
    """
    return _one("get_slot", state, params, path, slot).value


@checked
def set_slot(state: StateTree, params: Params, path: str, slot: str, value: ShapesTree) -> OptState:
    """The state with another value of one slot of one parameter. Shapes must fit; the slot keeps its dtype.

    Args:
      params, path, slot: as in `get_slot`.
      value: an array, or for a slot of several arrays a tree like what `get_slot` returns.

    Raises:
      ValueError: for another shape, and as `get_slot`.
    """
    found = _one("set_slot", state, params, path, slot)
    old, treedef = jax.tree.flatten(found.value)
    new, given = jax.tree.flatten(value)
    at = f"set_slot: {found.name} of {path or 'the root'}"
    if given != treedef:
        raise ValueError(f"{at} is {treedef}, got {given} as value")
    for x, y in zip(old, new, strict=True):
        if jnp.shape(y) != x.shape:
            raise ValueError(f"{at} has shape {x.shape}, the value has shape {jnp.shape(y)}")
        if _kind(y) > _kind(x):
            raise TypeError(f"{at} has dtype {x.dtype}, which cannot hold values of dtype {jnp.result_type(y)}")
    leaves = jax.tree.leaves(state)
    leaves[found.part.start : found.part.stop] = [jnp.asarray(y, x.dtype) for x, y in zip(old, new, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


@checked
def reset(
    tx: Any,
    state: OptState,
    params: Params,
    where: Where | None = None,
    slots: Texts | None = None,
    *,
    own_age: bool = True,
) -> OptState:
    """The state in which the slots of the parameters that `where` chooses are those of `tx.init(params)`.

    Everything else stays, the steps of schedules too. A count that is the age of averages gets an entry for each
    parameter, which is 0 for those whose averages all begin anew: their first steps are as long as those of a new run.

    Args:
      tx: the transformation whose state it is.
      where, slots: as in `find_slots`.
      own_age: False leaves counts alone, and with them the shapes in the state, which a loop inside `jit` needs. With
        Adam, the first steps of what was reset are then up to about 6 times as long, for about 1 / (1 - b2) updates;
        `slots="mu"` resets only the direction, without this effect.

    Raises:
      ValueError: for a state of another transformation, and as `find_slots`.
    """
    fresh = check_transformation("reset: tx", tx).init(params)
    if jax.tree.structure(unwrapped(fresh)) != jax.tree.structure(unwrapped(state)):
        raise ValueError("reset: this is not a state of tx for these parameters; migrate(state, tx, params) makes one")
    inside = dict(inner_states(tx, fresh))
    found = _found("reset", state, params, where, slots, holders_of(inside))
    if not found:
        chosen = "one parameter" if where is None else f"the parameters that {described(where)} chooses"
        raise ValueError(f"reset: the state holds nothing that belongs to {chosen}")
    leaves, new = jax.tree.leaves(state), jax.tree.leaves(fresh)
    for part in (s.part for s in found):
        leaves[part.start : part.stop] = new[part.start : part.stop]
    anew, parts = {s.part.key for s in found}, list(split(state, params, holders_of(inside)))
    for count, beside in aged(parts, rules_of(inside)) if own_age else ():
        kept = {p.parameter for p in parts if p.stage == count.stage and p.key not in anew}
        if all(slot.parameter in kept for slot in beside):
            continue
        before = count.value if is_ages(count, beside) else [count.value] * len(beside)
        ages = [x if slot.parameter in kept else 0 for slot, x in zip(beside, before, strict=True)]
        leaves[count.start] = count_of(ages, count.value.dtype)
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


def has_name(path: str, name: str) -> bool:
    """Whether a part of a state at this path has this name: the path or the end of it."""
    return path == name or path.endswith(f".{name}")


def _found(
    context: str,
    state: Any,
    params: Any,
    where: Any,
    slot: str | Sequence[str] | None,
    holders: frozenset[str] = frozenset(),
) -> list[StateSlot]:
    shapes = unwrapped(shapes_of(context, params))
    called = parameter_names(shapes)
    chosen = set(called.values())
    if where is not None:
        where, leaves = check_where(f"{context}: where", where), dict(jax.tree_util.tree_leaves_with_path(shapes))
        chosen = {name for path, name in called.items() if path in leaves and matches(where, name, leaves[path], None)}
        if not chosen:
            instead = what_instead(where, called.values())
            raise ValueError(f"{context}: {described(where)} chooses no parameter{instead}")
    everything = [
        StateSlot(called[part.parameter], part.name, part.value, part)
        for part in split(state, shapes, holders)
        if part.parameter is not None
    ]
    wanted = None if slot is None else (slot,) if isinstance(slot, str) else tuple(slot)
    for name in wanted or ():
        if not any(has_name(s.name, name) for s in everything):
            there = f"the slots are {listed(sorted({s.name for s in everything}), CHOICES)}"
            if not everything:
                there = f"nothing in it has the structure of the parameters {listed(sorted(called.values()), CHOICES)}"
            raise ValueError(f"{context}: the state has no slot {name!r}; {there}")
    return [
        s
        for s in everything
        if s.parameter in chosen and (wanted is None or any(has_name(s.name, name) for name in wanted))
    ]


def _one(context: str, state: Any, params: Any, path: str, slot: str) -> StateSlot:
    named = parameter_names(params).values()
    if path not in named:
        raise ValueError(f"{context}: there is no parameter at {path!r}; {known_paths(path, named)}")
    found = [s for s in _found(context, state, params, None, slot) if s.parameter == path]
    if not found:
        others = sorted(s.name for s in _found(context, state, params, None, None) if s.parameter == path)
        raise ValueError(f"{context}: {path} has no slot {slot!r}; its slots are {listed(others, CHOICES)}")
    # A whole path means only the slot at that path, though it may be the end of another path.
    found = [s for s in found if s.name == slot] or found
    if len(found) > 1:
        several = listed([s.name for s in found], CHOICES)
        raise ValueError(f"{context}: {path} has several slots {slot!r}: {several}; name one")
    return found[0]


def _kind(x: Any) -> int:
    """The rank of a dtype by the numbers it can hold: values of a higher rank do not fit into it."""
    dtype = jnp.result_type(x)
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    return next((i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind)), len(kinds))
