# SPDX-License-Identifier: Apache-2.0
"""Running an optimizer and scaling how far it has gone: the loop that Mechanic and TRAC share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.counts import safe_increment
from gradtx.core.dtypes import compute_dtype, promotion, widen
from gradtx.core.ranges import is_number
from gradtx.core.transformation import (
    GradientTransformationExtraArgs,
    check_transformation,
    with_extra_args_support,
)
from gradtx.core.trees import align, check_shapes, is_hole, is_none
from gradtx.core.types import OptState, Params, Updates
from gradtx.numerics.distance import inner
from gradtx.numerics.moments import zeros_like
from gradtx.numerics.safe import abs_sq


class Totals(NamedTuple):
    """Sums over all parameters: of the gradient g, the parameters p and the displacement, each with each."""

    g_g: jax.Array
    p_p: jax.Array
    displacement_g: jax.Array
    displacement_p: jax.Array


def scaled_displacement(
    name: str,
    base: Any,
    state_type: type,
    start: Callable[[], dict],
    tune: Callable[[dict, Totals], tuple[jax.Array, dict]],
    scale: Callable[[dict], Any] | None = None,
) -> GradientTransformationExtraArgs:
    """Moves the parameters to x0 + S D, where x0 are the first ones and the displacement D is the sum of the updates.

    What is remembered between the steps is a dictionary, `start()` at first; `tune(remembered, totals)` makes S of it
    and of D before the step, and what is remembered next. D is a field `delta` of the state, a tree; without such a
    field it is (p - x0) / scale(remembered).
    """
    tx = with_extra_args_support(check_transformation(f"{name}: base_optimizer", base))
    fields = state_type._fields  # type: ignore[attr-defined]  # a named tuple class
    names = [n for n in fields if n not in ("base_optimizer_state", "count", "x0", "delta")]

    def init(params: Params) -> OptState:
        trees = {"x0": jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p)), params)}
        if "delta" in fields:
            trees["delta"] = jax.tree.map(lambda p: zeros_like(jnp.asarray(p), compute_dtype(jnp.asarray(p))), params)
        return state_type(base_optimizer_state=tx.init(params), count=jnp.zeros([], jnp.int32), **trees, **start())

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        if getattr(state, "_fields", None) != fields:
            raise TypeError(
                f"{name}: state must be the {state_type.__name__} that init or the last update returned, "
                f"got {type(state).__name__}; the order is update(updates, state, params)"
            )
        if params is None:
            raise ValueError(f"{name}: update needs the parameters: call update(updates, state, params)")
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)

        def column(tree: Any, what: str) -> list:
            return align(treedef, tree, name, what, updates, "the gradients")

        ps, firsts = column(params, "the parameters"), column(state.x0, "the state's x0")
        check_shapes(name, "gradient", updates, leaves, ps)
        base_updates, base_state = tx.update(updates, state.base_optimizer_state, params, **extra)
        steps = column(base_updates, "the updates of base_optimizer")
        live = [i for i, step in enumerate(steps) if not is_hole(step) and not is_hole(leaves[i])]

        remembered = {n: getattr(state, n) for n in names}
        new, deltas = list(steps), column(state.delta, "the state's delta") if "delta" in fields else list(firsts)
        for i in live:
            if scale is not None:
                deltas[i] = _recovered(ps[i], firsts[i], scale(remembered))
        totals = [_totals(leaves[i], ps[i], deltas[i]) for i in live]
        if totals:
            factor, remembered = tune(remembered, jax.tree.map(lambda *xs: sum(xs[1:], start=xs[0]), *totals))
            for i in live:
                new[i], deltas[i] = _moved(ps[i], firsts[i], deltas[i], steps[i], factor)
        if "delta" in fields:
            remembered["delta"] = treedef.unflatten(deltas)
        new_state = state._replace(base_optimizer_state=base_state, count=safe_increment(state.count), **remembered)
        return treedef.unflatten(new), new_state

    return GradientTransformationExtraArgs(init, update)


def alike(x: Any) -> Any:
    """A hyperparameter in the dtype of the totals; Python numbers stay, to be folded in double precision."""
    return x if is_number(x) else jnp.asarray(x, jnp.result_type(float))


def _wide(*arrays: Any) -> tuple:
    """The arrays in the dtype of their arithmetic; scalars of the whole tree do not widen it."""
    dtype = compute_dtype([jnp.asarray(x) for x in arrays])
    return tuple(widen(x, dtype) for x in arrays)


@jax.jit
def _recovered(p: Any, first: Any, scale: Any) -> jax.Array:
    p, first = _wide(p, first)
    with promotion(p):
        return (p - first) / scale.astype(jnp.real(p).dtype)


@jax.jit
def _totals(g: Any, p: Any, delta: Any) -> Totals:
    g, p, delta = _wide(g, p, delta)
    with promotion(g, p, delta):
        sums = jnp.sum(abs_sq(g)), jnp.sum(abs_sq(p)), inner(delta, g), inner(delta, p)
    return Totals(*(x.astype(jnp.result_type(float)) for x in sums))


@jax.jit
def _moved(p: Any, first: Any, delta: Any, step: Any, factor: Any) -> tuple[jax.Array, jax.Array]:
    """The update to first + factor (delta + step), and the new displacement in its own dtype."""
    wide_p, wide_first, wide, step = _wide(p, first, delta, step)
    with promotion(wide_p, step):
        wide = wide + step
        u = factor.astype(jnp.real(wide).dtype) * wide - (wide_p - wide_first)
    return u, wide.astype(jnp.result_type(delta))
