# SPDX-License-Identifier: Apache-2.0
"""The lift: runs a rule on one array over trees.

Map, sum, map: each leaf is measured (where the rule asks for it), the measures are summed over the tree, what all
leaves share is computed once, each leaf is updated. The work on a leaf is that of `core._kernels`.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._buckets import Bucket, init_matrices, looks_of
from gradtx.core._by_group import by_group, check_memory, in_groups, note_reached
from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._kernels import Kernels, Rule, RuleSource, init_whole
from gradtx.core._matrices import Modes
from gradtx.core._over_devices import Names, on_leaf, sum_over
from gradtx.core._placement import in_place
from gradtx.core._rescaling import divided, in_range_over
from gradtx.core._roles import Boxed, carried_role, carried_split, closed, is_full_box, names_of, opened
from gradtx.core._said import check_said
from gradtx.core._stacks import cut, over_stack, stack_axes
from gradtx.core._trees import align, check_shapes, check_state, is_hole, is_leaf, paths, show_path
from gradtx.core._types import OptState, Params, Updates


def lifted(source: RuleSource, rule: Rule, values: dict[str, Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`init` and `update` of a rule whose hyperparameters have these values at each step."""

    def init(params: Params) -> OptState:
        return init_tree(source, rule, values, params)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        return update_tree(source, rule, values, updates, state, params, extra)

    return init, update


def init_tree(source: RuleSource, rule: Rule, values: dict[str, Any], params: Params) -> OptState:
    """The state for these parameters: a tree like them for each slot, the memory and the count."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_full_box)
    same, varying = by_group(values, leaves)
    check_scalars(rule.name, same)
    check_memory(rule, varying)
    if varying:
        note_reached(params)
    at = functools.cache(lambda dtype: source.at(widen(same, dtype)))
    modes = [None] * len(leaves)
    if rule.modes_of is not None:
        each = zip(jax.tree.leaves(params, is_leaf=is_leaf), rule.modes_of(rule.name, params), strict=True)
        modes = [found for x, found in each if opened(x) is not None]

    def init_leaf(leaf: Any, found: Any) -> tuple:
        original = opened(leaf)
        p = original if isinstance(original, jax.Array) else jnp.asarray(original)
        dtype, role, split = compute_dtype(p), carried_role(leaf), carried_split(leaf)
        stack = stack_axes(role, p.ndim)
        part = split and split.without(stack, p.ndim)

        def init_one(entries: dict, one: jax.Array) -> tuple:
            here = source.at(widen(same, dtype) | entries) if entries else at(dtype)
            told = here.role(role, p.ndim)
            with on_leaf(part, p.ndim - len(stack), p):
                if here.whole and part is not None and part.names:
                    slots = init_whole(here, part, one, told)
                else:
                    slots = here.init(one, **told)  # type: ignore[misc]  # has one, as it has slots
            slots = (slots,) if len(rule.slots) == 1 or not isinstance(slots, tuple | list) else slots
            if len(slots) != len(rule.slots):
                raise TypeError(
                    f"{rule.name}: init must return {len(rule.slots)} slots, {rule.slots}, got {len(slots)}; "
                    f"the state class must have a field for each, besides {rule.counter!r} and the memory"
                )
            return tuple(slots)

        entries = widen(varying.of(leaf), dtype)

        def init_all(p: Any) -> Any:
            if found is not None:
                own = widen(same, dtype) | entries
                return tuple(init_matrices(source.at, own, widen(p, dtype), Bucket([], [], [], found, role, split)))
            return over_stack(init_one, stack, p.shape, entries, cut(widen(p, dtype), stack))

        # Not compiled: outside jit, zeros_like gives slots the parameter's sharding, compiled zeros would lose it.
        # Under the vmap over a stack they would lose it too.
        apart = bool(stack) if found is None else not found.is_plain(p.ndim)
        slots = in_place(init_all, p) if apart else init_all(p)
        return jax.tree.map(lambda x: _owned(x, original, p), slots)

    if rule.init is None and rule.slots:
        raise TypeError(f"{rule.name}: the rule needs an init, as {rule.state.__name__} has the slots {rule.slots}")
    if rule.slots:
        _check_no_keys(rule.name, params)
    # Without slots, one parameter is enough to see that `init` makes none.
    some = leaves if rule.slots else leaves[:1]
    rows = list(map(init_leaf, some, modes[: len(some)])) if rule.init is not None else []
    rows = rows if rule.slots else []
    columns = zip(*rows, strict=True) if rows else [()] * len(rule.slots)
    fields = {n: jax.tree.unflatten(treedef, column) for n, column in zip(rule.slots, columns, strict=False)}
    if rule.memory is not None:
        start = source.at(widen(same, jnp.result_type(float))).memory()  # type: ignore[misc]  # has one, see above
        fields |= {n: _scalar(x) for n, x in start.items()}
    if rule.counts:
        fields[rule.counter] = jnp.zeros([], jnp.int32)
    return rule.state(**fields)


def _check_no_keys(where: str, params: Params) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise TypeError(
                f"{where}: the parameter at {show_path(path)} is a random key ({x.dtype}), which cannot be trained: "
                f"leave it out of the parameters"
            )


def _scalar(x: Any) -> jax.Array:
    """A strongly typed array of its own for a scalar of the memory: floats in at least float32."""
    x = _owned(jnp.array(x))
    return widen(x, compute_dtype(x)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _owned(x: Any, *held: Any) -> jax.Array:
    """A strongly typed array; a copy of what the caller holds, so that donating it leaves the state alive."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    x = x.astype(x.dtype) if x.weak_type else x
    return jnp.copy(x) if any(x is h for h in held) else x


class _Live(NamedTuple):
    """A leaf with a gradient: its place in the tree, and what its kernels get, with t as `count`."""

    index: int
    kernels: Kernels
    values: dict[str, Any]
    g: Any
    slots: Any
    p: Any
    count: Any


def update_tree(
    source: RuleSource,
    rule: Rule,
    values: dict[str, Any],
    updates: Updates,
    state: OptState,
    params: Params,
    extra: dict[str, Any],
) -> tuple[Updates, OptState]:
    """One step of a rule over a tree, with the given values of the hyperparameters that move."""
    _check_arguments(rule, updates, state, params, extra)
    if rule.modes_of is not None:
        check_said(rule.name, params)
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_leaf)
    gs, ps = list(map(opened, leaves)), [None] * len(leaves)
    if params is not None:
        ps = list(map(opened, align(treedef, params, rule.name, "the parameters", updates, "the gradients")))
        check_shapes(rule.name, "gradient", updates, gs, ps)
    fields = [getattr(state, name) for name in rule.slots]
    held = [align(treedef, f, rule.name, "the state's trees", updates, "the gradients") for f in fields]
    slots = _rows([list(map(opened, column)) for column in held], len(leaves))
    count: Any = safe_increment(getattr(state, rule.counter)) if rule.counts else None
    memory = None if rule.memory is None else {name: getattr(state, name) for name in rule.memory()}
    if rule.idle is not None:
        slots = [rule.idle(x, count, memory) if is_hole(g) else x for g, x in zip(gs, slots, strict=True)]

    found = [i for i, g in enumerate(gs) if not is_hole(g)]
    counts, ages = [count] * len(leaves), None
    if count is not None and count.ndim:
        ages = _places(rule, state, treedef, updates)
        counts = [count[at] if isinstance(at, int) else None for at in ages]
    same, groups = values, None
    if values:
        same, groups = in_groups(source, values, [leaves[i] for i in found])
        check_scalars(rule.name, same)
    runs = [(source.kernels, same)] * len(found) if groups is None else groups.runs
    told = [_told(rule, x) if isinstance(x, Boxed) else x for x in leaves]
    live = [_Live(i, *run, told[i], slots[i], ps[i], counts[i]) for i, run in zip(found, runs, strict=True)]

    total, common = None, [()] * len(live)
    try:
        if rule.measure is not None and live:
            check_said(rule.name, params)
            total = (_in_range if rule.rescales else _total)(live, memory)
            common = [(total,)] * len(live)
        if rule.shared is not None and live:
            needed = {name: jnp.asarray(extra[name]) for name in rule.needs}
            if ages is not None:
                common = _shared_by_age(rule, live, groups, total, needed)
            elif groups is None:
                made, memory = source.kernels.shared(same, count, total, memory, needed)
                common = [() if made is None else (made,)] * len(live)
            else:
                common, memory = groups.shared(rule, count, total, memory, needed)
    except TypeError as error:
        if why := _about_none(error, rule, t=count):
            raise TypeError(f"{rule.name}: {error}{why}") from error
        raise
    new_leaves, new_slots = list(leaves), list(slots)
    pairs = zip(live, common, strict=True)
    for rows, known, modes in (
        [([x], k, None) for x, k in pairs] if rule.modes_of is None else _alike(rule, updates, pairs)
    ):
        x = rows[0]
        try:
            if modes is None:
                done = [x.kernels.update(x.values, x.g, x.slots, x.p, x.count, known)]
            else:
                done = x.kernels.update_matrices(x.values, _bucket(rule, rows, modes), x.count, known)
        except (ValueError, TypeError) as error:
            raise _located(error, rule, updates, x) from error
        for y, (u, new) in zip(rows, done, strict=True):
            new_leaves[y.index], new_slots[y.index] = closed(leaves[y.index], u), new

    # A wrapper may have made the slots from the parameters, boxes included.
    columns = zip(held, _columns(new_slots, len(held)), strict=True)
    trees = [treedef.unflatten(map(closed, old, new)) for old, new in columns]
    new_state = dict(zip(rule.slots, trees, strict=True)) | (memory or {})
    if rule.counts:
        before = getattr(state, rule.counter)
        new_state[rule.counter] = count if ages is None else _aged(before, count, [ages[i] for i in found])
    return jax.tree.unflatten(treedef, new_leaves), state._replace(**new_state) if new_state else state


def _alike(
    rule: Rule, updates: Updates, pairs: Iterable[tuple[_Live, tuple]]
) -> list[tuple[list[_Live], tuple, Modes]]:
    """The leaves of a rule on matrices that run at once, with what they get of what is shared, and their modes."""
    modes = rule.modes_of(rule.name, updates)  # type: ignore[misc]  # the caller has looked
    found: dict[Any, tuple[list[_Live], tuple, Modes]] = {}
    for x, known in pairs:
        run = (id(x.kernels), id(x.values), id(x.count), *map(id, known))
        key = (looks_of(x.g, x.slots, x.p), modes[x.index], carried_role(x.g), carried_split(x.g), run)
        found.setdefault(key, ([], known, modes[x.index]))[0].append(x)
    return list(found.values())


def _bucket(rule: Rule, rows: list[_Live], modes: Modes) -> Bucket:
    slots = [[x.slots] if len(rule.slots) == 1 else list(x.slots) for x in rows]
    g = rows[0].g
    return Bucket([opened(x.g) for x in rows], slots, [x.p for x in rows], modes, carried_role(g), carried_split(g))


def _places(rule: Rule, state: OptState, treedef: Any, updates: Updates) -> list:
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
    return align(treedef, places, rule.name, "the ages", updates, "the gradients")


def _shared_by_age(rule: Rule, live: list[_Live], groups: Any, total: Any, needed: dict) -> list[tuple]:
    """What each leaf gets of what its age determines; a stack, which has one age, for each of its groups."""
    return [
        (x.kernels.shared(x.values, x.count, total, None, needed)[0],)
        if groups is None or isinstance(groups.leaves[i].group, int)
        else groups.shared(rule, x.count, total, None, needed)[0][i]
        for i, x in enumerate(live)
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


def _told(rule: Rule, leaf: Boxed) -> Any:
    """The gradient in a box as the kernels get it: with the role only if it makes a difference."""
    asks = rule.uses_role or rule.modes_of is not None
    role = leaf.role if leaf.role is not None and (leaf.role.stack or asks) else None
    return leaf.value if role is None and leaf.split is None else Boxed(leaf.value, role, split=leaf.split)


def _sum(measures: list) -> Any:
    return jax.tree.map(lambda *xs: jnp.sum(jnp.stack(xs)), *measures)


def _by_names(live: list[_Live]) -> dict[Names, list[_Live]]:
    """The leaves by the mesh axes between whose devices they are split."""
    found: dict[Names, list[_Live]] = {}
    for x in live:
        found.setdefault(names_of(x.g), []).append(x)
    return found


def _measured(live: list[_Live], memory: Any, scale: jax.Array | None = None) -> Any:
    """The sum of the measures of these leaves; with a scale, of their gradients divided by it."""
    gs = [x.g if scale is None else divided(x.g, scale) for x in live]
    return _sum([x.kernels.measure(x.values, g, x.slots, x.p, x.count, memory) for x, g in zip(live, gs, strict=True)])


def _total(live: list[_Live], memory: Any) -> Any:
    return sum_over({names: _measured(leaves, memory) for names, leaves in _by_names(live).items()})


def _in_range(live: list[_Live], memory: Any) -> tuple[jax.Array, jax.Array]:
    """The total as `in_range` has it: measured again, of smaller or larger gradients, where their squares failed."""
    groups = _by_names(live)
    return in_range_over(
        {names: _measured(leaves, memory) for names, leaves in groups.items()},
        lambda names, scale: _measured(groups[names], memory, scale),
    )


def check_scalars(where: str, values: dict[str, Any]) -> None:
    """Raises an error for a hyperparameter that is not one number at this step."""
    for name, value in values.items():
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{where}: {name} must be a scalar at each step, got shape {jnp.shape(value)}; "
                f"to train a population, jax.vmap over the transformation; groups of parameters can only differ where "
                f"stages see the parameters one by one"
            )


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


def _located(error: Exception, rule: Rule, updates: Updates, x: _Live) -> Exception:
    shape = jnp.shape(opened(x.g))
    shapes = ", ".join(str(jnp.shape(slot)) for slot in jax.tree.leaves(x.slots)) or "none"
    where = f"{rule.name}: at {paths(updates)[x.index]}"
    why = _about_none(error, rule, t=x.count, p=x.p)
    return ValueError(f"{where}: {error}{why} (gradient of shape {shape}, state of shapes {shapes})")
