# SPDX-License-Identifier: Apache-2.0
"""Minimization of a function: one compiled loop around any transformation."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core._apply import apply_updates
from gradtx.core._calls import Value
from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._kinds import Tuple
from gradtx.core._ranges import Range, is_array, is_number
from gradtx.core._scheduled import ScheduledState
from gradtx.core._transformation import as_inner, check_transformation
from gradtx.core._trees import align, is_none, show_path
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._box import clip_to
from gradtx.optimizers._lbfgs import lbfgs
from gradtx.transforms._backtracking import ScaleByBacktrackingLinesearchState
from gradtx.transforms._lines import value_and_gradient
from gradtx.transforms._linesearch import ScaleByZoomLinesearchState


class MinimizeResult(NamedTuple):
    """What `minimize` returns.

    `grad_norm` is the largest magnitude of an element of the gradient, or with bounds of clip(p - g) - p. `evaluations`
    counts all calls of the function, with or without gradient, those of line searches too. `converged` tells whether
    one of the tolerances was met. `aux` belongs to the final parameters; it is None without `has_aux`.
    """

    params: Params
    value: jax.Array
    grad_norm: jax.Array
    steps: jax.Array
    evaluations: jax.Array
    converged: jax.Array
    aux: Any
    state: OptState


class MinimizeProgress(NamedTuple):
    """What the callback of `minimize` gets after each step."""

    steps: jax.Array
    value: jax.Array
    grad_norm: jax.Array
    evaluations: jax.Array


class _Loop(NamedTuple):
    params: Params
    state: OptState
    value: jax.Array
    gradient: Updates
    norm: jax.Array
    steps: jax.Array
    evaluations: jax.Array
    settled: jax.Array  # the value has stopped changing
    stuck: jax.Array  # how many steps in a row changed no parameter
    over: jax.Array


Count = Annotated[Any, Range(low=0.0, whole=True, many=True)]
Tolerance = Annotated[Any, Range(low=0.0, endless=True, many=True)]


@checked
def minimize(
    fn: Callable[..., Any],
    params: Params,
    tx: Any = None,
    *,
    args: Tuple = (),
    max_steps: Count = 1_000,
    tol: Tolerance = 1e-5,
    value_tol: Tolerance = 0.0,
    has_aux: bool = False,
    bounds: Sequence[Any] | None = None,
    projection: Callable[..., Any] | None = None,
    callback: Callable[..., Any] | None = None,
) -> MinimizeResult:
    """Minimizes `fn(params, *args)` from `params` with a transformation, in one compiled loop.

    It ends when `tol` or `value_tol` is met, when a step makes value or gradient non-finite (that step is undone), when
    line searches find no step any more, or after `max_steps`. A second call with the same function and arguments of the
    same types compiles nothing. It may run under `jax.jit` and `jax.vmap`.

    Args:
      fn: a function that returns a scalar, or with `has_aux` a pair (scalar, aux).
      params: where to start.
      tx: the method; None for `lbfgs()`. If its last stage is a line search, its value and gradient are reused.
      args: further arguments of `fn`, such as data. New arrays here compile nothing, while a new `fn` does.
      max_steps: the largest number of steps.
      tol: the loop ends when no element of the gradient exceeds this magnitude.
      value_tol: the loop ends when a step changes the value by at most value_tol max(1, |value|); 0 for never.
      has_aux: whether `fn` also returns aux, for which it is evaluated once more at the end.
      bounds: (lower, upper), each None, a number, or a tree like `params` of numbers, arrays and Nones. Each step is
        clipped to them. L-BFGS and line searches leave out elements held by a bound (Bertsekas 1982).
      projection: a function from parameters to the nearest point of a convex set, applied after each step. Not for
        line searches.
      callback: gets a `MinimizeProgress` after each step, through `jax.debug.callback`.

    Raises:
      TypeError: for parameters that are whole numbers, and tolerances that are no real numbers.
      ValueError: for a start that is not finite, negative tolerances, bounds that do not fit the parameters, bounds
        and a projection together, or a projection with a line search.
    """
    tx = lbfgs() if tx is None else check_transformation("minimize: tx", tx)
    for name, value in (("max_steps", max_steps), ("tol", tol), ("value_tol", value_tol)):
        if jnp.ndim(value) != 0:
            raise ValueError(f"minimize: {name} must be a scalar, got shape {jnp.shape(value)}")
    if bounds is not None and projection is not None:
        raise ValueError("minimize: give bounds or a projection, not both")
    box = None if bounds is None else _full_bounds(bounds, params)
    # The hyperparameters of a gradtx value are arguments of the compiled loop: a new learning rate compiles nothing.
    leaves, treedef = jax.tree.flatten(tx) if isinstance(tx, Value) else ([], None)
    method = _Method(fn, tx if treedef is None else None, treedef, has_aux, projection, callback)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.result_type(p)), params)
    _check_start(params)
    return _minimize(method, leaves, params, args, box, jnp.asarray(max_steps, jnp.int32), tol, value_tol)


def _check_start(params: Params) -> None:
    """Raises an error for a parameter that is not floating-point, or where no step leads away from."""
    for path, p in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(p.dtype, jnp.inexact):
            raise TypeError(
                f"minimize: params must be floating-point numbers, got {p.dtype} at {show_path(path)}: "
                f"give data and constants as args"
            )
        if not isinstance(p, Tracer) and not jnp.isfinite(p).all():
            raise ValueError(f"minimize: params must be finite to start from, got {p} at {show_path(path)}")


class _Method(NamedTuple):
    """The static part of a call."""

    fn: Callable[..., Any]
    tx: Any
    treedef: Any
    has_aux: bool
    projection: Callable[..., Any] | None
    callback: Callable[..., Any] | None


@functools.partial(jax.jit, static_argnums=0)
def _minimize(
    method: _Method,
    hyperparameters: list,
    params: Params,
    args: tuple,
    box: tuple | None,
    max_steps: Any,
    tol: Any,
    value_tol: Any,
) -> MinimizeResult:
    tx = method.tx if method.treedef is None else jax.tree.unflatten(method.treedef, hyperparameters)
    tx = as_inner("minimize: tx", tx)
    dtype = compute_dtype(params)

    def value_fn(p: Params) -> jax.Array:
        value = method.fn(p, *args)
        pair = isinstance(value, tuple | list) and len(value) == 2
        value = value[0] if method.has_aux and pair else value
        if pair != method.has_aux or isinstance(value, tuple | list) or jnp.ndim(value) != 0:
            raise ValueError("minimize: fn must return a scalar, or with has_aux=True a pair (scalar, aux)")
        return jnp.asarray(value).astype(dtype)

    def nearest(p: Params) -> Params:
        return method.projection(p) if method.projection is not None else _clipped(p, box)

    def largest(p: Params, g: Updates) -> jax.Array:
        if method.projection is not None:
            return _largest(_difference(nearest(apply_updates(p, _negative(g))), p), dtype)
        return _largest(g if box is None else _projected(p, g, box), dtype)

    def more(loop: _Loop) -> jax.Array:
        return ~loop.over & ~(loop.norm <= tol) & ~loop.settled & (loop.steps < max_steps)

    def step(loop: _Loop) -> _Loop:
        g = jax.tree.map(jnp.conj, loop.gradient)
        extra = {} if box is None else {"bounds": box}
        updates, state = tx.update(g, loop.state, loop.params, value=loop.value, grad=g, value_fn=value_fn, **extra)
        p = nearest(apply_updates(loop.params, updates))
        search, searches = _last_search(state), list(_search_steps(state))
        if searches and method.projection is not None:
            raise ValueError(
                "minimize: a line search knows bounds, but no other projection; give a tx without a search"
            )
        evaluations = sum(searches, start=loop.evaluations)
        if search is None or search.grad is None:
            value, gradient = value_and_gradient(value_fn, p)
            evaluations = evaluations + 1
        else:
            value, gradient = search.value.astype(dtype), search.grad
        norm = largest(p, jax.tree.map(jnp.conj, gradient))
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        moved = _any_differs(p, loop.params)
        change = jnp.abs(value - loop.value)
        size = jnp.maximum(jnp.maximum(jnp.abs(value), jnp.abs(loop.value)), 1)
        stuck = jnp.where(moved, 0, loop.stuck + 1)
        steps = loop.steps + 1
        settled = finite & moved & (value_tol > 0) & (change <= value_tol * size)
        # A search that found no step is repeated once, since L-BFGS then starts anew; a third would be the same.
        over = (~finite | (stuck > 1)) if searches else ~finite
        new = loop._replace(params=p, state=state, value=value, gradient=gradient, norm=norm)
        kept = jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, loop)
        if method.callback is not None:
            jax.debug.callback(method.callback, MinimizeProgress(steps, kept.value, kept.norm, evaluations))
        return kept._replace(steps=steps, evaluations=evaluations, settled=settled, stuck=stuck, over=over)

    tol, value_tol = (jnp.asarray(x, dtype) for x in (tol, value_tol))
    params = nearest(params)
    value, gradient = value_and_gradient(value_fn, params)
    norm = largest(params, jax.tree.map(jnp.conj, gradient))
    zero, false = jnp.zeros([], jnp.int32), jnp.zeros([], bool)
    over = ~(jnp.isfinite(value) & jnp.isfinite(norm))
    loop = _Loop(params, tx.init(params), value, gradient, norm, zero, zero + 1, false, zero, over)
    end = jax.lax.while_loop(more, step, loop)
    aux = method.fn(end.params, *args)[1] if method.has_aux else None
    evaluations = end.evaluations + (1 if method.has_aux else 0)
    converged = (end.norm <= tol) | end.settled
    return MinimizeResult(end.params, end.value, end.norm, end.steps, evaluations, converged, aux, end.state)


def _last_search(state: Any) -> Any:
    """The state of a line search that is the last stage, so that its value belongs to the updated parameters."""
    if isinstance(state, ScaleByZoomLinesearchState | ScaleByBacktrackingLinesearchState):
        return state
    if isinstance(state, ScheduledState):
        return _last_search(state.inner_state)
    if isinstance(state, dict):
        state = tuple(state.values())
    if not isinstance(state, tuple) or hasattr(state, "_fields"):
        return None
    return _last_search(state[-1]) if state else None


def _search_steps(state: Any) -> Any:
    """The number of evaluations in the last search of each line search in a state."""
    if hasattr(state, "num_linesearch_steps"):
        yield state.num_linesearch_steps
    elif isinstance(state, tuple | list | dict):
        for child in state.values() if isinstance(state, dict) else state:
            yield from _search_steps(child)


def _full_bounds(bounds: Any, params: Params) -> tuple:
    """The bounds as two trees like the parameters, whose leaves are arrays of the parameters' shapes or None."""
    if not (isinstance(bounds, tuple | list) and len(bounds) == 2):
        raise ValueError(f"minimize: bounds must be a pair (lower, upper), got {type(bounds).__name__}")
    leaves, treedef = jax.tree.flatten(params)
    names = [show_path(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]

    def full(bound: Any) -> list:
        if bound is None or is_number(bound) or (is_array(bound) and jnp.ndim(bound) == 0):
            rows = [bound] * len(leaves)
        else:
            rows = align(treedef, bound, "minimize", "the bounds", params, "the parameters")
        return [_bound(b, p, name) for b, p, name in zip(rows, leaves, names, strict=True)]

    lower, upper = map(full, bounds)
    for low, high, name in zip(lower, upper, names, strict=True):
        known = not any(b is None or isinstance(b, Tracer) for b in (low, high))
        if known and not bool(jnp.all(low <= high)):
            raise ValueError(f"minimize: at {name} a lower bound is above the upper bound")
    return treedef.unflatten(lower), treedef.unflatten(upper)


def _bound(bound: Any, p: Any, name: str) -> jax.Array | None:
    if bound is None or not jnp.issubdtype(jnp.result_type(p), jnp.inexact):
        return None
    if jnp.ndim(bound) != 0 and jnp.shape(bound) != jnp.shape(p):
        raise ValueError(
            f"minimize: the bound at {name} has shape {jnp.shape(bound)}, its parameter has shape {jnp.shape(p)}"
        )
    return jnp.broadcast_to(jnp.asarray(bound, compute_dtype(jnp.asarray(p))), jnp.shape(p))


def _clipped(params: Params, box: tuple | None) -> Params:
    if box is None:
        return params
    leaves, treedef = jax.tree.flatten(params)
    rows = zip(leaves, *map(treedef.flatten_up_to, box), strict=True)
    return treedef.unflatten([clip_to(p, *bounds) for p, *bounds in rows])


def _projected(params: Params, gradient: Updates, box: tuple) -> Updates:
    """p - clip(p - g), computed without rounding p - g."""

    def element(p: Any, g: Any, lower: Any, upper: Any) -> Any:
        if is_none(g):
            return None
        p, g = widen((p, g), compute_dtype(p))
        g = g if lower is None else jnp.where(g > 0, jnp.minimum(g, p - lower.astype(p.dtype)), g)
        return g if upper is None else jnp.where(g < 0, jnp.maximum(g, p - upper.astype(p.dtype)), g)

    leaves, treedef = jax.tree.flatten(params)
    rows = zip(leaves, *(treedef.flatten_up_to(t) for t in (gradient, *box)), strict=True)
    return treedef.unflatten([element(*row) for row in rows])


def _negative(gradient: Updates) -> Updates:
    return jax.tree.map(jnp.negative, gradient)


def _difference(a: Params, b: Params) -> Updates:
    return jax.tree.map(lambda x, y: widen(x) - widen(y), a, b)


def _largest(gradient: Updates, dtype: Any) -> jax.Array:
    found = [jnp.max(jnp.abs(g), initial=0).astype(dtype) for g in jax.tree.leaves(gradient)]
    return jnp.max(jnp.stack(found)) if found else jnp.zeros([], dtype)


def _any_differs(a: Params, b: Params) -> jax.Array:
    found = [jnp.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return jnp.any(jnp.stack(found)) if found else jnp.zeros([], bool)
