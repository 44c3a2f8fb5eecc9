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

from gradtx.core.counts import has_count, safe_increment
from gradtx.core.dtypes import compute_dtype, promotion, widen
from gradtx.core.trees import align, check_shapes, is_hole, is_none, paths
from gradtx.core.types import EmptyState, OptState, Params, Updates


class Rule(NamedTuple):
    """A rule on one array; see `per_parameter`."""

    init: Callable | None
    update: Callable
    state: type | None
    measure: Callable | None
    shared: Callable | None
    needs_params: bool
    name: str

    @property
    def slots(self) -> tuple[str, ...]:
        """The state's fields that hold a tree like the parameters."""
        return tuple(f for f in getattr(self.state, "_fields", ()) if f != "count")


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

    def measure(values: dict, g: jax.Array, slots: Any, p: Any, count: Any) -> Any:
        _, rule, arguments = prepared(values, g, slots, p, count)
        with promotion(g, slots, p):
            return rule.measure(*arguments)  # type: ignore[misc]  # only called for rules that measure

    def shared(values: dict, count: Any, total: Any) -> Any:
        t, total, values = widen((count, total, values), jnp.result_type(float))
        return source.at(values).shared(t, total)  # type: ignore[misc]  # only called for rules that share

    def update(values: dict, g: jax.Array, slots: Any, p: Any, count: Any, common: Any) -> tuple:
        dtype, rule, arguments = prepared(values, g, slots, p, count)
        common = () if common is None else (widen(common, dtype),)
        with jax.named_scope(rule.name), promotion(g, slots, p):
            u, new_slots = rule.update(*arguments, *common)
        if jnp.shape(u) != g.shape:
            raise ShapeError(f"the gradient has shape {g.shape}, but the update has shape {jnp.shape(u)}")
        return u, jax.tree.map(_stored, new_slots, slots)

    return Kernels(jax.jit(measure), jax.jit(shared), jax.jit(update))


_shared_kernels = functools.lru_cache(maxsize=1024)(_kernels)


class ShapeError(ValueError):
    """Shapes that do not fit; the lift adds the rule's name and the path."""


def _stored(new: jax.Array, old: jax.Array) -> jax.Array:
    if jnp.shape(new) != old.shape:
        raise ShapeError(f"the state was made for another shape: {old.shape}, updated {jnp.shape(new)}")
    return jnp.asarray(new).astype(old.dtype)


def init_tree(source: RuleSource, rule: Rule, values: dict[str, Any], params: Params) -> OptState:
    """The state for these parameters: a tree like them for each slot, and the count."""
    _check_values(rule, values)
    state = EmptyState if rule.state is None else rule.state
    names = rule.slots
    leaves, treedef = jax.tree.flatten(params)
    rows = [_init_leaf(source, rule, values, p) for p in leaves] if names else []
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    slots = {n: jax.tree.unflatten(treedef, column) for n, column in zip(names, columns, strict=False)}
    count = {"count": jnp.zeros([], jnp.int32)} if has_count(state) else {}
    return state(**count, **slots)


def _init_leaf(source: RuleSource, rule: Rule, values: dict[str, Any], original: Any) -> tuple:
    # Not compiled: outside jit, zeros_like gives slots the parameter's sharding, compiled zeros would lose it.
    p = jnp.asarray(original)
    dtype = compute_dtype(p)
    slots = source.at(widen(values, dtype)).init(widen(p, dtype))  # type: ignore[misc]  # a rule with slots has an init
    slots = (slots,) if len(rule.slots) == 1 else slots
    if len(slots) != len(rule.slots):
        raise TypeError(f"{rule.name}: init must return {len(rule.slots)} slots, {rule.slots}, got {len(slots)}")
    # A copy of what the caller holds, so that donating the parameters leaves the state alive.
    return jax.tree.map(lambda x: jnp.copy(x) if x is original or x is p else jnp.asarray(x), tuple(slots))


def update_tree(
    source: RuleSource, rule: Rule, values: dict[str, Any], updates: Updates, state: OptState, params: Params
) -> tuple[Updates, OptState]:
    """One step of a rule over a tree, with the given values of the hyperparameters that move."""
    _check_values(rule, values)
    _check_state(rule, state, params)
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    ps: list = [None] * len(leaves)
    if params is not None:
        ps = align(treedef, params, rule.name, "the parameters", updates, "the gradients")
        check_shapes(rule.name, "gradient", updates, leaves, ps)
    names = rule.slots
    fields = [getattr(state, n) for n in names]
    columns = [align(treedef, f, rule.name, "the state's trees", updates, "the gradients") for f in fields]
    slots: list = columns[0] if len(names) == 1 else list(zip(*columns, strict=True)) if names else [()] * len(leaves)

    count = safe_increment(state.count) if has_count(state) else None
    live = [i for i, g in enumerate(leaves) if not is_hole(g)]
    common = None
    if rule.measure is not None and live:
        common = _sum([source.kernels.measure(values, leaves[i], slots[i], ps[i], count) for i in live])
    if rule.shared is not None and live:
        common = source.kernels.shared(values, count, common)
    new_leaves, new_slots = list(leaves), list(slots)
    for i in live:
        try:
            new_leaves[i], new_slots[i] = source.kernels.update(values, leaves[i], slots[i], ps[i], count, common)
        except (ShapeError, TypeError) as error:
            raise _located(error, rule, updates, i, leaves[i], slots[i]) from error

    columns = [new_slots] if len(names) == 1 else zip(*new_slots, strict=True)
    new_state = {n: jax.tree.unflatten(treedef, column) for n, column in zip(names, columns, strict=False)}
    if count is not None:
        new_state["count"] = count
    return jax.tree.unflatten(treedef, new_leaves), state._replace(**new_state)


def _sum(measures: list) -> Any:
    return jax.tree.map(lambda *xs: jnp.sum(jnp.stack(xs)) if len(xs) > 1 else xs[0], *measures)


def _check_values(rule: Rule, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{rule.name}: {name} must be a scalar at each step, got shape {jnp.shape(value)}; "
                f"to train a population, jax.vmap over the transformation"
            )


def _check_state(rule: Rule, state: OptState, params: Params) -> None:
    expected = EmptyState if rule.state is None else rule.state
    if getattr(state, "_fields", None) != expected._fields:  # type: ignore[attr-defined]  # named tuple classes
        raise TypeError(
            f"{rule.name}: state must be the {expected.__name__} that init or the last update returned, "
            f"got {type(state).__name__}; the order is update(updates, state, params)"
        )
    if rule.needs_params and params is None:
        raise ValueError(f"{rule.name}: update needs the parameters: call update(updates, state, params)")


def _located(error: Exception, rule: Rule, updates: Updates, i: int, g: Any, slots: Any) -> Exception:
    shapes = ", ".join(str(jnp.shape(x)) for x in jax.tree.leaves(slots)) or "none"
    return ValueError(
        f"{rule.name}: at {paths(updates)[i]}: {error} (gradient of shape {jnp.shape(g)}, state of shapes {shapes})"
    )
