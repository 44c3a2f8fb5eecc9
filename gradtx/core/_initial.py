# SPDX-License-Identifier: Apache-2.0
"""The state that a rule on one array begins with, for a tree of parameters."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._buckets import Bucket, init_matrices
from gradtx.core._by_group import by_group, check_memory, note_began
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._kernels import Rule, RuleSource, init_whole
from gradtx.core._over_devices import on_leaf
from gradtx.core._placement import in_place
from gradtx.core._roles import carried_role, carried_split, is_full_box, opened
from gradtx.core._stacks import cut, over_stack, stack_axes
from gradtx.core._trees import is_leaf, show_path
from gradtx.core._types import OptState, Params


def init_tree(source: RuleSource, rule: Rule, values: dict[str, Any], params: Params) -> OptState:
    """The state for these parameters: a tree like them for each slot, the memory and the count."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_full_box)
    same, varying = by_group(values, leaves)
    check_scalars(rule.name, same)
    check_memory(rule, varying)
    note_began(source, params, bool(varying))
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
    # With its dtype: what JAX remembers of a NumPy array may be of another setting of jax_enable_x64.
    x = _owned(jnp.array(x, jnp.result_type(x)))
    return widen(x, compute_dtype(x)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _owned(x: Any, *held: Any) -> jax.Array:
    """A strongly typed array; a copy of what the caller holds, so that donating it leaves the state alive."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    x = x.astype(x.dtype) if x.weak_type else x
    return jnp.copy(x) if any(x is h for h in held) else x


def check_scalars(where: str, values: dict[str, Any]) -> None:
    """Raises an error for a hyperparameter that is not one number at this step."""
    for name, value in values.items():
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{where}: {name} must be a scalar at each step, got shape {jnp.shape(value)}; "
                f"to train a population, jax.vmap over the transformation; groups of parameters can only differ where "
                f"stages see the parameters one by one"
            )
