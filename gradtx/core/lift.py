# SPDX-License-Identifier: Apache-2.0
"""The lift: runs a rule on one array over trees.

Map, sum, map: each leaf is measured (where the rule asks for it), the measures are summed over the tree, what all
leaves share is computed once, each leaf is updated. A leaf's work is one call of an inner `jax.jit`, so that a rule is
traced once for each distinct shape and dtype, and an update outside `jit` is one dispatch a leaf.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.counts import safe_increment
from gradtx.core.dtypes import compute_dtype, promotion, widen
from gradtx.core.trees import align, check_shapes, check_state, is_hole, is_none, paths
from gradtx.core.types import OptState, Params, Updates


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

    @property
    def slots(self) -> tuple[str, ...]:
        """The state's fields that hold a tree like the parameters."""
        scalars = {self.counter, *(() if self.memory is None else self.memory())}
        return tuple(f for f in self.state._fields if f not in scalars)

    @property
    def counts(self) -> bool:
        """Whether the state counts the steps."""
        return self.counter in self.state._fields


class RuleSource:
    """A rule as a function of the hyperparameters that move (arrays and schedules).

    Sources with equal keys share one compiled function; without a key, a source has its own.
    """

    def __init__(self, at: Callable[[dict[str, Any]], Rule], key: Any = None):
        self.at, self.key = at, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleSource) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @functools.cached_property
    def kernels(self) -> "Kernels":
        return _kernels(self) if self.key is None else _shared_kernels(self)


class Kernels(NamedTuple):
    measure: Callable
    shared: Callable
    update: Callable


def _kernels(source: RuleSource) -> Kernels:
    """The compiled functions of a rule. The hyperparameters that move are arguments of them."""

    def prepared(values: dict, g: jax.Array, slots: Any, p: Any, count: Any) -> tuple:
        dtype = compute_dtype(g, slots, p)
        g, slots, p, t, values = widen((g, slots, p, count, values), dtype)
        return dtype, source.at(values), (g, slots, p, t)

    def measure(values: dict, g: jax.Array, slots: Any, p: Any, count: Any, memory: Any) -> Any:
        dtype, rule, arguments = prepared(values, g, slots, p, count)
        known = () if memory is None else (_widen_floats(memory, dtype),)
        with promotion(g, slots, p):
            scalars = rule.measure(*arguments, *known)  # type: ignore[misc]  # only called for rules that measure
        return _widen_floats(jax.tree.map(jnp.asarray, scalars), jnp.result_type(float))  # to be summed over leaves

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

    def update(values: dict, g: jax.Array, slots: Any, p: Any, count: Any, common: Any) -> tuple:
        dtype, rule, arguments = prepared(values, g, slots, p, count)
        common = () if common is None else (_widen_floats(common, dtype),)
        with jax.named_scope(rule.name), promotion(g, slots, p):
            u, new_slots = rule.update(*arguments, *common)
        if jnp.shape(u) != g.shape:
            raise ValueError(f"the gradient has shape {g.shape}, but the update has shape {jnp.shape(u)}")
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
    _check_values(rule, values)
    leaves, treedef = jax.tree.flatten(params)
    at = functools.cache(lambda dtype: source.at(widen(values, dtype)))
    rows = [_init_leaf(rule, at, p) for p in leaves] if rule.slots else []
    columns = zip(*rows, strict=True) if rows else [()] * len(rule.slots)
    fields = {n: jax.tree.unflatten(treedef, column) for n, column in zip(rule.slots, columns, strict=False)}
    if rule.memory is not None:
        start = source.at(widen(values, jnp.result_type(float))).memory()  # type: ignore[misc]  # has one, see above
        fields |= {n: _scalar(x) for n, x in start.items()}
    if rule.counts:
        fields[rule.counter] = jnp.zeros([], jnp.int32)
    return rule.state(**fields)


def _scalar(x: Any) -> jax.Array:
    """A strongly typed array of its own for a scalar of the memory: floats in at least float32."""
    x = _owned(jnp.array(x))
    return widen(x, compute_dtype(x)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _init_leaf(rule: Rule, at: Callable, original: Any) -> tuple:
    # Not compiled: outside jit, zeros_like gives slots the parameter's sharding, compiled zeros would lose it.
    p = original if isinstance(original, jax.Array) else jnp.asarray(original)
    dtype = compute_dtype(p)
    slots = at(dtype).init(widen(p, dtype))
    slots = (slots,) if len(rule.slots) == 1 else slots
    if len(slots) != len(rule.slots):
        raise TypeError(f"{rule.name}: init must return {len(rule.slots)} slots, {rule.slots}, got {len(slots)}")
    return jax.tree.map(lambda x: _owned(x, original, p), tuple(slots))


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
    _check_values(rule, values)
    _check_arguments(rule, state, params, extra)
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    ps: list = [None] * len(leaves)
    if params is not None:
        ps = align(treedef, params, rule.name, "the parameters", updates, "the gradients")
        check_shapes(rule.name, "gradient", updates, leaves, ps)
    names = rule.slots
    fields = [getattr(state, n) for n in names]
    columns = [align(treedef, f, rule.name, "the state's trees", updates, "the gradients") for f in fields]
    slots: list = columns[0] if len(names) == 1 else list(zip(*columns, strict=True)) if names else [()] * len(leaves)

    count = safe_increment(getattr(state, rule.counter)) if rule.counts else None
    memory = None if rule.memory is None else {n: getattr(state, n) for n in rule.memory()}
    live = [i for i, g in enumerate(leaves) if not is_hole(g)]
    common = None
    if rule.measure is not None and live:
        common = _sum([source.kernels.measure(values, leaves[i], slots[i], ps[i], count, memory) for i in live])
    if rule.shared is not None and live:
        needed = {n: jnp.asarray(extra[n]) for n in rule.needs}
        common, memory = source.kernels.shared(values, count, common, memory, needed)
    new_leaves: list = list(leaves)
    new_slots: list = list(slots)
    for i in live:
        try:
            new_leaves[i], new_slots[i] = source.kernels.update(values, leaves[i], slots[i], ps[i], count, common)
        except (ValueError, TypeError) as error:
            raise _located(error, rule, updates, i, leaves[i], slots[i]) from error

    columns = [new_slots] if len(names) == 1 else zip(*new_slots, strict=True)
    new_state = {n: jax.tree.unflatten(treedef, column) for n, column in zip(names, columns, strict=False)}
    new_state |= memory or {}
    if rule.counts:
        new_state[rule.counter] = count
    return jax.tree.unflatten(treedef, new_leaves), state._replace(**new_state)


def _sum(measures: list) -> Any:
    return jax.tree.map(lambda *xs: jnp.sum(jnp.stack(xs)), *measures)


def _check_values(rule: Rule, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{rule.name}: {name} must be a scalar at each step, got shape {jnp.shape(value)}; "
                f"to train a population, jax.vmap over the transformation"
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
    return ValueError(
        f"{rule.name}: at {paths(updates)[i]}: {error} (gradient of shape {jnp.shape(g)}, state of shapes {shapes})"
    )
