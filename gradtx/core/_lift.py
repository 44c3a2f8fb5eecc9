# SPDX-License-Identifier: Apache-2.0
"""The lift: runs a rule on one array over trees.

Map, sum, map: each leaf is measured (where the rule asks for it), the measures are summed over the tree, what all
leaves share is computed once, each leaf is updated. A leaf's work is one call of an inner `jax.jit`, so that a rule is
traced once for each distinct shape and dtype, and an update outside `jit` is one dispatch a leaf. A leaf in a box (see
`core.roles`) may be a stack of parameters, each of which the rule then runs on by itself.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._by_group import ByGroup, Entries, by_group
from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._roles import Boxed, Role, is_box, is_full_box
from gradtx.core._stacks import Stacked, over_stack, slots_of, stack_axes
from gradtx.core._trees import align, check_shapes, check_state, is_hole, is_leaf, paths
from gradtx.core._types import OptState, Params, Updates


class Rule(NamedTuple):
    """A rule on one array; see `per_parameter`."""

    init: Callable | None
    update: Callable
    state: Any  # a named tuple class
    measure: Callable | None
    shared: Callable | None
    memory: Callable | None
    needs_params: bool
    needs: tuple[str, ...]
    counter: str
    name: str
    uses_role: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        """The state's fields that hold a tree like the parameters."""
        scalars = {self.counter, *(() if self.memory is None else self.memory())}
        return tuple(f for f in self.state._fields if f not in scalars)

    @property
    def counts(self) -> bool:
        """Whether the state counts the steps."""
        return self.counter in self.state._fields

    def role(self, role: Role | None, ndim: int) -> dict[str, Any]:
        """What the rule is told of the role of one parameter of an array of this rank."""
        return {"role": None if role is None else role.logical(ndim)} if self.uses_role else {}


class RuleSource:
    """A rule as a function of the hyperparameters that move (arrays and schedules).

    Sources with equal keys share one compiled function; without a key, a source has its own. `constant` are the names
    of hyperparameters that are better constants of it than arguments where groups of parameters differ in them.
    """

    def __init__(self, at: Callable[[dict[str, Any]], Rule], key: Any = None, constant: frozenset[str] = frozenset()):
        self.at, self.key, self.constant = at, key, constant
        self._fixed: dict[tuple, RuleSource] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleSource) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def fixed(self, constants: tuple) -> "RuleSource":
        """The source with these hyperparameters, pairs of name and number, as constants."""
        if not constants:
            return self
        if constants not in self._fixed:
            key = None if self.key is None else (self.key, constants)
            self._fixed[constants] = RuleSource(lambda values: self.at({**values, **dict(constants)}), key)
        return self._fixed[constants]

    @functools.cached_property
    def kernels(self) -> "Kernels":
        return _kernels(self) if self.key is None else _shared_kernels(self)


class Kernels(NamedTuple):
    measure: Callable
    shared: Callable
    update: Callable


def _kernels(source: RuleSource) -> Kernels:
    """The compiled functions of a rule. The hyperparameters that move are arguments of them."""

    def on_leaf(values: dict, g: Any, slots: Any, p: Any, count: Any, common: tuple, run: Callable) -> tuple:
        """What `run(rule, arguments, told)` returns for a leaf, in the dtype of the work, and the leaf's stack."""
        role, g = (g.role, g.value) if is_box(g) else (None, g)
        stack = stack_axes(role, g.ndim)
        dtype = compute_dtype(g, slots, p)
        g, slots, p, t, values = widen((g, slots, p, count, values), dtype)

        def on_one(values: dict, g: jax.Array, slots: Any, p: Any, common: tuple) -> Any:
            rule = source.at(values)
            with jax.named_scope(rule.name), promotion(g, slots, p):
                return run(rule, (g, slots, p, t, *common), rule.role(role, g.ndim + len(stack)))

        slots = slots_of(slots, stack, g.shape)
        common = _widen_floats(common, dtype)
        return over_stack(on_one, stack, g.shape, values, _cut(g, stack), slots, _cut(p, stack), common), stack

    def measure(values: dict, g: Any, slots: Any, p: Any, count: Any, memory: Any) -> Any:
        def run(rule: Rule, arguments: tuple, told: dict) -> Any:
            return jax.tree.map(jnp.asarray, rule.measure(*arguments, **told))  # type: ignore[misc]  # rules that measure

        known = () if memory is None else (memory,)
        scalars, stack = on_leaf(values, g, slots, p, count, known, run)
        scalars = jax.tree.map(lambda x: jnp.sum(x, axis=tuple(range(len(stack)))), scalars) if stack else scalars
        return _widen_floats(scalars, jnp.result_type(float))  # to be summed over leaves

    def shared(values: dict, count: Any, total: Any, memory: Any, extra: dict) -> Any:
        default = jnp.result_type(float)
        t, values = widen((count, values), default)
        total, known, extra = _widen_floats((total, memory, extra), default)
        rule = source.at(values)
        if memory is None:
            found = rule.shared(t, total, **extra)  # type: ignore[misc]  # only called for rules that share
            return jax.tree.map(jnp.asarray, found), None  # as jit does, for jax.disable_jit
        common, new = rule.shared(t, total, known, **extra)  # type: ignore[misc]
        return jax.tree.map(jnp.asarray, common), jax.tree.map(_stored, new, memory)

    def update(values: dict, g: Any, slots: Any, p: Any, count: Any, common: tuple) -> tuple:
        def run(rule: Rule, arguments: tuple, told: dict) -> tuple:
            (u, new_slots), shape = rule.update(*arguments, **told), arguments[0].shape
            if jnp.shape(u) != shape:
                raise ValueError(f"the gradient has shape {shape}, but the update has shape {jnp.shape(u)}")
            return u, new_slots

        (u, new_slots), _ = on_leaf(values, g, slots, p, count, common, run)
        return u, jax.tree.map(_stored, new_slots, slots)

    return Kernels(jax.jit(measure), jax.jit(shared), jax.jit(update))


_shared_kernels = functools.lru_cache(maxsize=1024)(_kernels)


def _stored(new: Any, old: jax.Array) -> jax.Array:
    if jnp.shape(new) != jnp.shape(old):
        raise ValueError(f"the state was made for another shape: {jnp.shape(old)}, updated {jnp.shape(new)}")
    return jnp.asarray(new).astype(old.dtype)


def _widen_floats(tree: Any, dtype: Any) -> Any:
    """`widen` that leaves booleans, whole numbers and random keys as they are."""
    return jax.tree.map(lambda x: widen(x, dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x, tree)


def init_tree(source: RuleSource, rule: Rule, values: dict[str, Any], params: Params) -> OptState:
    """The state for these parameters: a tree like them for each slot, the memory and the count."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_full_box)
    same, varying = by_group(values, leaves)
    _check_values(rule, same)
    _check_by_group(rule, varying)
    at = functools.cache(lambda dtype: source.at(widen(same, dtype)))

    def init_leaf(leaf: Any) -> tuple:
        original = leaf.value if is_box(leaf) else leaf
        p = original if isinstance(original, jax.Array) else jnp.asarray(original)
        dtype, role = compute_dtype(p), leaf.role if is_box(leaf) else None
        stack = stack_axes(role, p.ndim)

        def init_one(entries: dict, one: jax.Array) -> tuple:
            here = source.at(widen(same, dtype) | entries) if entries else at(dtype)
            slots = here.init(one, **here.role(role, p.ndim))  # type: ignore[misc]  # has one, as it has slots
            slots = (slots,) if len(rule.slots) == 1 else slots
            wanted = len(rule.slots)
            if len(slots) != wanted:
                raise TypeError(f"{rule.name}: init must return {wanted} slots, {rule.slots}, got {len(slots)}")
            return tuple(slots)

        # Not compiled: outside jit, zeros_like gives slots the parameter's sharding, compiled zeros would lose it.
        entries = widen(varying.of(leaf), dtype)
        slots = over_stack(init_one, stack, p.shape, entries, _cut(widen(p, dtype), stack))
        return jax.tree.map(lambda x: _owned(x, original, p), slots)

    rows = list(map(init_leaf, leaves)) if rule.slots else []
    columns = zip(*rows, strict=True) if rows else [()] * len(rule.slots)
    fields = {n: jax.tree.unflatten(treedef, column) for n, column in zip(rule.slots, columns, strict=False)}
    if rule.memory is not None:
        start = source.at(widen(same, jnp.result_type(float))).memory()  # type: ignore[misc]  # has one, see above
        fields |= {n: _scalar(x) for n, x in start.items()}
    if rule.counts:
        fields[rule.counter] = jnp.zeros([], jnp.int32)
    return rule.state(**fields)


def _scalar(x: Any) -> jax.Array:
    """A strongly typed array of its own for a scalar of the memory: floats in at least float32."""
    x = _owned(jnp.array(x))
    return widen(x, compute_dtype(x)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _owned(x: Any, *held: Any) -> jax.Array:
    """A strongly typed array; a copy of what the caller holds, so that donating it leaves the state alive."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    x = x.astype(x.dtype) if x.weak_type else x
    return jnp.copy(x) if any(x is h for h in held) else x


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
    _check_arguments(rule, state, params, extra)
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_leaf)
    gs, ps = _opened(leaves), [None] * len(leaves)
    if params is not None:
        ps = _opened(align(treedef, params, rule.name, "the parameters", updates, "the gradients"))
        check_shapes(rule.name, "gradient", updates, gs, ps)
    names = rule.slots
    fields = [getattr(state, n) for n in names]
    held = [align(treedef, f, rule.name, "the state's trees", updates, "the gradients") for f in fields]
    columns = [_opened(column) for column in held]
    slots: list = columns[0] if len(names) == 1 else list(zip(*columns, strict=True)) if names else [()] * len(leaves)

    count = safe_increment(getattr(state, rule.counter)) if rule.counts else None
    memory = None if rule.memory is None else {n: getattr(state, n) for n in rule.memory()}
    live = [i for i, g in enumerate(gs) if not is_hole(g)]
    same, varying = by_group(values, [leaves[i] for i in live])
    _check_values(rule, same)
    entries = Entries(varying, source.constant, [leaves[i] for i in live])
    kernels_of, values_of = {}, {}
    for i in live:
        constants, own = entries.of(leaves[i])
        kernels_of[i], values_of[i] = source.fixed(constants).kernels, same | own
    told = {i: _told(rule, leaves[i]) for i in live}
    common = None
    if rule.measure is not None and live:
        common = _sum([kernels_of[i].measure(values_of[i], told[i], slots[i], ps[i], count, memory) for i in live])
    if rule.shared is not None and live:
        needed = {n: jnp.asarray(extra[n]) for n in rule.needs}
        common, memory = _shared(source, rule, same, varying, entries, (count, common, memory, needed))
    common_of = _each(common, varying if rule.shared is not None else ByGroup({}))
    new_leaves: list = list(leaves)
    new_slots: list = list(slots)
    for i in live:
        try:
            u, new_slots[i] = kernels_of[i].update(values_of[i], told[i], slots[i], ps[i], count, common_of(leaves[i]))
        except (ValueError, TypeError) as error:
            raise _located(error, rule, updates, i, leaves[i], slots[i]) from error
        new_leaves[i] = _put(leaves[i], u)

    columns = [new_slots] if len(names) == 1 else list(zip(*new_slots, strict=True)) or [()] * len(names)
    # A wrapper may have made the slots from the parameters, boxes included.
    trees = [treedef.unflatten(map(_put, old, new)) for old, new in zip(held, columns, strict=False)]
    new_state = dict(zip(names, trees, strict=True))
    new_state |= memory or {}
    if rule.counts:
        new_state[rule.counter] = count
    return jax.tree.unflatten(treedef, new_leaves), state._replace(**new_state)


def _cut(x: Any, stack: tuple[int, ...]) -> Any:
    return Stacked(x, stack) if stack and x is not None else x


def _opened(leaves: list) -> list:
    return [x.value if isinstance(x, Boxed) else x for x in leaves]


def _put(held: Any, new: Any) -> Any:
    return held.holding(new) if isinstance(held, Boxed) and not isinstance(new, Boxed) else new


def _told(rule: Rule, leaf: Any) -> Any:
    """The gradient of a leaf as the compiled functions get it: with the role only if it makes a difference."""
    if not is_box(leaf):
        return leaf
    if leaf.role is None:
        return leaf.value
    return Boxed(leaf.value, leaf.role) if leaf.role.stack or rule.uses_role else leaf.value


def _shared(source: RuleSource, rule: Rule, same: dict, varying: ByGroup, entries: Entries, arguments: tuple) -> tuple:
    """What all leaves share and the new memory; where hyperparameters differ between groups, for each group."""
    if not varying:
        return source.kernels.shared(same, *arguments)
    _check_by_group(rule, varying)
    rows = entries.of_each_group(varying.size)
    found = [source.fixed(constants).kernels.shared(same | own, *arguments)[0] for constants, own in rows]
    return jax.tree.map(lambda *xs: jnp.stack(xs), *found), None


def _each(common: Any, varying: ByGroup) -> Callable[[Any], tuple]:
    """What a leaf gets of what is shared: all of it, or that of its group."""
    if common is None:
        return lambda leaf: ()
    if not varying:
        return lambda leaf: (common,)
    entries = ByGroup(common)
    return lambda leaf: (entries.of(leaf),)


def _sum(measures: list) -> Any:
    return jax.tree.map(lambda *xs: jnp.sum(jnp.stack(xs)), *measures)


def _check_values(rule: Rule, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{rule.name}: {name} must be a scalar at each step, got shape {jnp.shape(value)}; "
                f"to train a population, jax.vmap over the transformation; groups of parameters can only differ where "
                f"stages see the parameters one by one"
            )


def _check_by_group(rule: Rule, varying: ByGroup) -> None:
    if varying and rule.memory is not None:
        raise ValueError(
            f"{rule.name}: {', '.join(varying.tree)} cannot differ between groups of parameters: it goes into numbers "
            f"that the rule keeps for all of them, {', '.join(rule.memory())}"
        )


def _check_arguments(rule: Rule, state: OptState, params: Params, extra: dict[str, Any]) -> None:
    check_state(rule.name, state, rule.state)
    if rule.needs_params and params is None:
        raise ValueError(f"{rule.name}: update needs the parameters: call update(updates, state, params)")
    for name in rule.needs:
        if extra.get(name) is None:
            raise ValueError(f"{rule.name}: update needs {name}: call update(updates, state, params, {name}=...)")


def _located(error: Exception, rule: Rule, updates: Updates, i: int, g: Any, slots: Any) -> Exception:
    shapes = ", ".join(str(jnp.shape(x)) for x in jax.tree.leaves(slots)) or "none"
    g = g.value if is_box(g) else g
    return ValueError(
        f"{rule.name}: at {paths(updates)[i]}: {error} (gradient of shape {jnp.shape(g)}, state of shapes {shapes})"
    )
