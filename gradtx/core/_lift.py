# SPDX-License-Identifier: Apache-2.0
"""The lift: runs rules on one array over trees.

Map, sum, map: each leaf is measured (where the rule asks for it), the measures are summed over the tree, what all
leaves share is computed once, each leaf is updated. Rules of neighboring stages run on a leaf one after another, as
one function; a rule that measures what they make of it has to wait for all leaves. The work on a leaf is that of
`core._kernels`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._buckets import Bucket, looks_of
from gradtx.core._by_group import in_groups
from gradtx.core._counts import safe_increment
from gradtx.core._initial import check_scalars, init_tree
from gradtx.core._kernels import OnLeaf, Rule, RuleSource, joined
from gradtx.core._matrices import Modes
from gradtx.core._measuring import Live, total_in_range, total_of
from gradtx.core._roles import (
    Boxed,
    all_closed,
    all_opened,
    carried_role,
    carried_split,
    is_full_box,
    opened,
)
from gradtx.core._said import check_said
from gradtx.core._scheduled import handed_on, initial, own_state, values_at
from gradtx.core._trees import align, check_hidden, check_shapes, check_state, is_hole, is_leaf, paths, places_of_values
from gradtx.core._types import OptState, Params, Updates


class Mask(NamedTuple):
    """What a stage that hides leaves from a rule is to the lift.

    Attributes:
      seen: from updates and parameters to whether each leaf is seen, None counting as a leaf.
      opened: from the state of the stage to that of the rule.
      closed: from the state before and the new state of the rule to the new state of the stage.
    """

    seen: Callable[[Updates, Params], list[bool]]
    opened: Callable[[OptState], OptState]
    closed: Callable[[OptState, OptState], OptState]


class RuleStage(NamedTuple):
    """A rule and its hyperparameters that move: arrays, and schedules if it `is_scheduled`."""

    source: RuleSource
    rule: Rule
    moving: dict[str, Any]
    is_scheduled: bool = False
    mask: Mask | None = None
    is_bare: bool = True
    """Whether the state of the stage is that of its rule."""

    @property
    def joins(self) -> bool:
        """Whether it can run on a leaf right after the stages before it, without a look at the other leaves."""
        return self.rule.measure is None and self.rule.modes_of is None

    def inside(self, state: OptState) -> OptState:
        """The state that `init` of the rule makes, with its count of steps."""
        return state if self.mask is None else self.mask.opened(state)

    def own(self, state: OptState) -> OptState:
        """The state of the rule itself."""
        inside = self.inside(state)
        return own_state(self.rule.name, inside) if self.is_scheduled else inside

    def after(self, state: OptState, own: OptState) -> OptState:
        """What becomes of a state whose rule now has this one."""
        inside = handed_on(self.inside(state), own) if self.is_scheduled else own
        return inside if self.mask is None else self.mask.closed(state, inside)

    def masked(self, mask: Mask) -> "RuleStage | None":
        """The same rule on the leaves that a mask shows; None if it keeps or needs more than leaves."""
        rule = self.rule
        is_blind = self.joins and rule.idle is None and rule.memory is None and not rule.needs and self.mask is None
        return self._replace(mask=mask, is_bare=False) if is_blind else None


def lifted(stage: RuleStage) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`init` and `update` of a stage that is a rule."""
    source, rule, moving, is_scheduled, *_ = stage

    def init(params: Params) -> OptState:
        if is_scheduled:
            return initial(rule.name, moving, lambda values: init_tree(source, rule, values, params))
        return init_tree(source, rule, moving, params)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        updates, states = update_tree((stage,), updates, (state,), params, extra)
        return updates, states[0]

    return init, update


class _Tree(NamedTuple):
    """The trees of a step: their leaves, what is in the boxes of these, and which leaves have a gradient."""

    updates: Updates
    params: Params
    leaves: list
    treedef: Any
    gs: list
    ps: list
    found: list[int]


class _Step(NamedTuple):
    """A stage at one step: the lists have an entry for each leaf, `runs` and `boxes` one for each with a gradient.

    Attributes:
      state: that of the rule itself.
      held: the trees of the state, a list of leaves for each slot.
      counts: the step, or the age, of each leaf; `ages` are the places of the ages in the count.
      same, groups: the hyperparameters that are the same for all leaves, and how to run where others are not.
      runs: for each leaf the source of the rule, and the hyperparameters.
      boxes: for each leaf what the rule is told about it.
      seen: whether the rule sees each leaf of the tree; None if it sees all.
    """

    rule: Rule
    source: RuleSource
    state: OptState
    held: list[list]
    slots: list
    count: Any
    counts: list
    ages: list | None
    memory: dict[str, Any] | None
    same: dict[str, Any]
    groups: Any
    runs: list[tuple[RuleSource, dict[str, Any]]]
    boxes: list
    seen: list[bool] | None = None


def update_tree(
    stages: Sequence[RuleStage],
    updates: Updates,
    states: Sequence[OptState],
    params: Params,
    extra: dict[str, Any],
) -> tuple[Updates, list[OptState]]:
    """One step of the rules of these stages over a tree. All but the first must be such that they join."""
    pairs = list(zip(stages, states, strict=True))
    owns = [state if stage.is_bare else stage.own(state) for stage, state in pairs]
    for stage, own in zip(stages, owns, strict=True):
        _check_arguments(stage.rule, updates, own, params, extra)
    tree = _tree(stages[0].rule, updates, params)
    steps = [_step(stage, state, own, tree) for (stage, state), own in zip(pairs, owns, strict=True)]
    shared = [_shared(step, tree, extra) for step in steps]
    new_leaves, new_slots = list(tree.leaves), [list(step.slots) for step in steps]
    rows = _by_matrices if stages[0].rule.modes_of is not None else _by_leaves
    try:
        for i, u, new in rows(steps, tree, [common for common, _ in shared]):
            new_leaves[i] = u
            for column, slots in zip(new_slots, new, strict=True):
                column[i] = slots
    except (ValueError, TypeError):
        if len(stages) > 1:  # one by one they say whose error it is
            for stage, state in pairs:
                updates, _ = update_tree((stage,), updates, (state,), params, extra)
        raise
    new_states = [
        _state_after(step, tree, slots, memory)
        for step, slots, (_, memory) in zip(steps, new_slots, shared, strict=True)
    ]
    after = zip(pairs, new_states, strict=True)
    new_states = [own if stage.is_bare else stage.after(state, own) for (stage, state), own in after]
    return jax.tree.unflatten(tree.treedef, all_closed(tree.leaves, new_leaves)), new_states


def _tree(rule: Rule, updates: Updates, params: Params) -> _Tree:
    if rule.modes_of is not None:
        check_said(rule.name, params)
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_leaf)
    gs, ps = all_opened(leaves), [None] * len(leaves)
    if params is not None:
        ps = all_opened(align(treedef, params, rule.name, "the parameters", updates, "the gradients"))
        check_shapes(rule.name, "gradient", updates, gs, ps)
    return _Tree(updates, params, leaves, treedef, gs, ps, places_of_values(gs))


def _step(stage: RuleStage, whole: OptState, state: OptState, tree: _Tree) -> _Step:
    rule, values = stage.rule, stage.moving
    if stage.is_scheduled:
        values = values_at(rule.name, values, stage.inside(whole))
    fields = [getattr(state, name) for name in rule.slots]
    held = [align(tree.treedef, f, rule.name, "the state's trees", tree.updates, "the gradients") for f in fields]
    slots = _rows(list(map(all_opened, held)), len(tree.leaves))
    count: Any = safe_increment(getattr(state, rule.counter)) if rule.counts else None
    memory = None if rule.memory is None else {name: getattr(state, name) for name in rule.memory()}
    if rule.idle is not None:
        slots = [rule.idle(x, count, memory) if is_hole(g) else x for g, x in zip(tree.gs, slots, strict=True)]
    counts, ages = [count] * len(tree.leaves), None
    if count is not None and count.ndim:
        ages = _places(rule, state, tree)
        counts = [count[at] if isinstance(at, int) else None for at in ages]
    live = [tree.leaves[i] for i in tree.found]
    same, groups = values, None
    if values:
        same, groups = in_groups(stage.source, values, live)
        check_scalars(rule.name, same)
    runs = [(stage.source, same)] * len(live) if groups is None else groups.runs
    boxes = [_told(rule, x) if isinstance(x, Boxed) else None for x in live]
    seen = None if stage.mask is None else stage.mask.seen(tree.updates, tree.params)
    if seen is not None:
        check_hidden(rule.name, tree.updates, tree.found, seen, held)
    return _Step(rule, stage.source, state, held, slots, count, counts, ages, memory, same, groups, runs, boxes, seen)


def _live(step: _Step, tree: _Tree) -> list[Live]:
    rows = zip(tree.found, step.runs, step.boxes, strict=True)
    return [
        Live(i, *run, tree.gs[i] if box is None else box.holding(tree.gs[i]), step.slots[i], tree.ps[i], step.counts[i])
        for i, run, box in rows
    ]


def _shared(step: _Step, tree: _Tree, extra: dict[str, Any]) -> tuple[list[tuple], dict[str, Any] | None]:
    """What each leaf with a gradient gets of what all of them share, and the new memory."""
    rule, memory, n = step.rule, step.memory, len(tree.found)
    total, common = None, [()] * n
    try:
        if rule.measure is not None and n:
            check_said(rule.name, tree.params)
            total = (total_in_range if rule.rescales else total_of)(_live(step, tree), memory)
            common = [(total,)] * n
        if rule.shared is not None and n:
            needed = {name: jnp.asarray(extra[name]) for name in rule.needs}
            if step.ages is not None:
                common = _shared_by_age(step, tree, total, needed)
            elif step.groups is None:
                made, memory = step.source.kernels.shared(step.same, step.count, total, memory, needed)
                common = [() if made is None else (made,)] * n
            else:
                common, memory = step.groups.shared(rule, step.count, total, memory, needed)
    except TypeError as error:
        if why := _about_none(error, rule, t=step.count):
            raise TypeError(f"{rule.name}: {error}{why}") from error
        raise
    return common, memory


Row = tuple[int, Any, Sequence]
"""The place of a leaf, its update, and its new slots for each stage."""


def _by_leaves(steps: list[_Step], tree: _Tree, commons: list[list[tuple]]) -> Iterable[Row]:
    at_once = None
    if not any([step.groups or step.seen for step in steps]):
        at_once = joined(tuple([step.source for step in steps]))
    rows = list(zip(steps, commons, strict=True))
    for j, i in enumerate(tree.found):
        shown = [row for row in rows if row[0].seen is None or row[0].seen[i]] if at_once is None else rows
        run = at_once or joined(tuple([step.runs[j][0] for step, _ in shown]))
        parts = [OnLeaf(x.runs[j][1], x.boxes[j], x.slots[i], x.counts[i], common[j]) for x, common in shown]
        try:
            u, new = run(parts, tree.gs[i], tree.ps[i])
        except (ValueError, TypeError) as error:
            raise _located(error, steps[0], tree, i) from error
        if len(shown) < len(rows):
            made = iter(new)
            new = [x.slots[i] if x.seen is not None and not x.seen[i] else next(made) for x in steps]
        yield i, u, new


def _by_matrices(steps: list[_Step], tree: _Tree, commons: list[list[tuple]]) -> Iterable[Row]:
    (step,), (common,) = steps, commons
    rule = step.rule
    for rows, known, modes in _alike(rule, tree.updates, zip(_live(step, tree), common, strict=True)):
        x = rows[0]
        try:
            done = x.source.kernels.update_matrices(x.values, _bucket(rule, rows, modes), x.count, known)
        except (ValueError, TypeError) as error:
            raise _located(error, step, tree, x.index) from error
        for y, (u, slots) in zip(rows, done, strict=True):
            yield y.index, u, (slots,)


def _state_after(step: _Step, tree: _Tree, slots: list, memory: dict[str, Any] | None) -> OptState:
    rule = step.rule
    # A wrapper may have made the slots from the parameters, boxes included.
    columns = zip(step.held, _columns(slots, len(step.held)), strict=True)
    trees = [tree.treedef.unflatten(all_closed(old, new)) for old, new in columns]
    fields = dict(zip(rule.slots, trees, strict=True)) | (memory or {})
    if rule.counts:
        before, places = getattr(step.state, rule.counter), step.ages
        fields[rule.counter] = (
            step.count if places is None else _aged(before, step.count, [places[i] for i in tree.found])
        )
    return step.state._replace(**fields) if fields else step.state


def _alike(rule: Rule, updates: Updates, pairs: Iterable[tuple[Live, tuple]]) -> list[tuple[list[Live], tuple, Modes]]:
    """The leaves of a rule on matrices that run at once, with what they get of what is shared, and their modes."""
    modes = rule.modes_of(rule.name, updates)  # type: ignore[misc]  # the caller has looked
    found: dict[Any, tuple[list[Live], tuple, Modes]] = {}
    for x, known in pairs:
        run = (id(x.source), id(x.values), id(x.count), *map(id, known))
        key = (looks_of(x.g, x.slots, x.p), modes[x.index], carried_role(x.g), carried_split(x.g), run)
        found.setdefault(key, ([], known, modes[x.index]))[0].append(x)
    return list(found.values())


def _bucket(rule: Rule, rows: list[Live], modes: Modes) -> Bucket:
    slots = [[x.slots] if len(rule.slots) == 1 else list(x.slots) for x in rows]
    g = rows[0].g
    return Bucket([opened(x.g) for x in rows], slots, [x.p for x in rows], modes, carried_role(g), carried_split(g))


def _places(rule: Rule, state: OptState, tree: _Tree) -> list:
    """Where the age of each leaf is in the count, if it has one for each parameter that the rule has slots of.

    So it is after surgery: averages that begin anew beside old ones have an age of their own. It counts the gradients
    of its parameter.
    """
    structure = jax.tree.structure(getattr(state, rule.slots[0]), is_leaf=is_full_box)
    given = jnp.shape(getattr(state, rule.counter))
    if given != (structure.num_leaves,) or rule.memory is not None:
        raise ValueError(
            f"{rule.name}: {rule.counter} must be a scalar or have an entry for each of {structure.num_leaves} "
            f"parameters, got shape {given}; for a population of states, jax.vmap over update"
        )
    places = structure.unflatten(range(structure.num_leaves))
    return align(tree.treedef, places, rule.name, "the ages", tree.updates, "the gradients")


def _shared_by_age(step: _Step, tree: _Tree, total: Any, needed: dict) -> list[tuple]:
    """What each leaf gets of what its age determines; a stack, which has one age, for each of its groups."""
    groups, counts = step.groups, [step.counts[i] for i in tree.found]
    return [
        (source.kernels.shared(values, count, total, None, needed)[0],)
        if groups is None or isinstance(groups.leaves[i].group, int)
        else groups.shared(step.rule, count, total, None, needed)[0][i]
        for i, ((source, values), count) in enumerate(zip(step.runs, counts, strict=True))
    ]


def _aged(before: Any, count: Any, places: list[int]) -> jax.Array:
    """The new count at these places, the old one elsewhere."""
    return jnp.where(np.isin(np.arange(len(count)), places), count, before)


def _rows(columns: list[list], length: int) -> list:
    """The slots of each leaf as the rule gets them: one bare, several as a tuple."""
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True)) if columns else [()] * length


def _columns(rows: list, width: int) -> list:
    """The leaves of each slot's tree: `_rows` undone."""
    return [rows] if width == 1 else list(zip(*rows, strict=True)) or [()] * width


def _told(rule: Rule, leaf: Boxed) -> Boxed | None:
    """The empty box of a leaf as the kernels get it: with the role only if it makes a difference."""
    asks = rule.uses_role or rule.modes_of is not None
    role = leaf.role if leaf.role is not None and (leaf.role.stack or asks) else None
    return None if role is None and leaf.split is None else Boxed(None, role, split=leaf.split)


def _check_arguments(rule: Rule, updates: Updates, state: OptState, params: Params, extra: dict[str, Any]) -> None:
    check_state(rule.name, state, rule.state, updates, params)
    if rule.needs_params and params is None:
        raise ValueError(f"{rule.name}: update needs the parameters: call update(updates, state, params)")
    for name in rule.needs:
        if extra.get(name) is None:
            raise ValueError(f"{rule.name}: update needs {name}: call update(updates, state, params, {name}=...)")


def _about_none(error: Exception, rule: Rule, **arguments: Any) -> str:
    """What may be wrong if an argument of the rule is None, and the error is about None."""
    reasons = {
        "t": f"{rule.state.__name__} has no field {rule.counter!r}",
        "p": "update got no parameters (needs_params=True makes that an error)",
    }
    none = [name for name, x in arguments.items() if x is None] if "NoneType" in str(error) else []
    return "".join(f"; {name} is None, as {reasons[name]}" for name in none)


def _located(error: Exception, step: _Step, tree: _Tree, i: int) -> Exception:
    slots = step.slots[i]
    shape = jnp.shape(tree.gs[i])
    shapes = ", ".join(str(jnp.shape(slot)) for slot in jax.tree.leaves(slots)) or "none"
    where = f"{step.rule.name}: at {paths(tree.updates)[i]}"
    why = _about_none(error, step.rule, t=step.counts[i], p=tree.ps[i])
    return ValueError(f"{where}: {error}{why} (gradient of shape {shape}, state of shapes {shapes})")
