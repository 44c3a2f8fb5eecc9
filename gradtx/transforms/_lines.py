# SPDX-License-Identifier: Apache-2.0
"""A function of the parameters along an update, as one of the step size, and the stage that searches for the step."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._apply import apply_updates
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._over_devices import Names, reduced_over, sum_over
from gradtx.core._roles import names_of_leaves
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._trees import align, check_shapes, check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._box import clip_to, is_free
from gradtx.numerics._distance import inner
from gradtx.numerics._wolfe import Point

MISSING = "call update(updates, state, params, value=..., grad=..., value_fn=...)"


class Line:
    """value_fn(p + step u) and its slope, for the update u of parameters p.

    With bounds it is the projected line, clip(p + step u). Elements of p that are at a bound, and that descent would
    move out of it, do not move along this line. Gradients are as `jax.grad` returns them; `grad` is their conjugate.
    """

    def __init__(
        self,
        where: str,
        updates: Updates,
        params: Params,
        value: Any,
        grad: Updates,
        value_fn: Any,
        bounds: tuple | None,
        extra: dict[str, Any],
        strict: bool,
    ):
        given = {"value": value, "grad": grad, "value_fn": value_fn}
        missing = [n for n, x in given.items() if x is None]
        if missing:
            raise ValueError(f"{where}: update needs {', '.join(missing)}: {MISSING}")
        if params is None:
            raise ValueError(f"{where}: update needs the parameters: {MISSING}")
        check_said(where, params)
        if jnp.ndim(value) != 0:
            raise ValueError(f"{where}: value must be a scalar, got shape {jnp.shape(value)}")
        us, self.treedef = jax.tree.flatten(updates, is_leaf=is_none)
        self.names = names_of_leaves(updates)  # the mesh axes between whose devices the leaves are split
        self.ps = align(self.treedef, params, where, "the parameters", updates, "the updates")
        check_shapes(where, "update", updates, us, self.ps)
        gs = align(self.treedef, grad, where, "grad", updates, "the updates")
        check_shapes(where, "gradient", grad, gs, self.ps)
        self.value_fn = _with_known_arguments(where, value_fn, extra, strict)
        self.params, self.dtype = params, compute_dtype(params)
        self.value = jnp.asarray(value).astype(self.dtype)
        self.box = None if bounds is None else box_leaves(where, bounds, self.treedef, updates, self.ps)
        self.us = [
            u if is_hole(u) else _restricted(jnp.asarray(u), p, g, i, self.box)
            for i, (u, p, g) in enumerate(zip(us, self.ps, gs, strict=True))
        ]
        self.slope = self._slope([None if is_hole(g) else jnp.conj(g) for g in gs], [True] * len(us))

    def updates(self, step: jax.Array) -> Updates:
        """`step` times the update; with bounds, the difference between the point on the projected line and p."""
        if self.box is None:
            # A step of 0 gives an update of 0, also where u is not finite.
            scaled = [u if is_hole(u) else jnp.where(step > 0, _times(step, u), 0) for u in self.us]
            return self.treedef.unflatten(scaled)
        at, _ = self._at(step)
        rows = zip(self.us, self.ps, self.treedef.flatten_up_to(at), strict=True)
        return self.treedef.unflatten([u if is_hole(u) else _difference(q, p) for u, p, q in rows])

    def value_at(self, step: jax.Array) -> jax.Array:
        """The value at a step."""
        return jnp.asarray(self.value_fn(self._at(step)[0])).astype(self.dtype)

    def point_at(self, step: jax.Array) -> Point:
        """The value, the slope and the gradient at a step."""
        at, moving = self._at(step)
        value, gradient = value_and_gradient(self.value_fn, at)
        slope = self._slope(self.treedef.flatten_up_to(gradient), moving)
        return Point(step, value.astype(self.dtype), slope, gradient)

    def start(self, grad: Updates) -> Point:
        """The point at step 0; its gradient is 0 where `grad` has none."""
        gs = self.treedef.flatten_up_to(grad)
        held = [no_gradient(p) if is_hole(g) else _gradient_like(p, g) for p, g in zip(self.ps, gs, strict=True)]
        return Point(jnp.zeros([], self.dtype), self.value, self.slope, self.treedef.unflatten(held))

    def shortest(self) -> jax.Array:
        """A step size so small that no parameter changes."""
        found: dict[Names, list] = {(): [jnp.asarray(jnp.inf, self.dtype)]}
        for u, p, names in zip(self.us, self.ps, self.names, strict=True):
            if is_hole(u) or jnp.size(u) == 0:
                continue
            size, change = jnp.abs(p).astype(self.dtype), jnp.abs(u).astype(self.dtype)
            ratio = jnp.where(change > 0, size / jnp.where(change > 0, change, 1), jnp.inf)
            least = jnp.min(ratio) * (float(jnp.finfo(jnp.result_type(p)).eps) / 8)
            found.setdefault(names, []).append(least)
        shortest = reduced_over({n: jnp.min(jnp.stack(xs)) for n, xs in found.items()}, jnp.min, jax.lax.pmin)
        return jnp.where(jnp.isfinite(shortest), shortest, 0)

    def _at(self, step: jax.Array) -> tuple[Params, list]:
        """The parameters at a step, and which of their elements move along the line there."""
        scaled = self.treedef.unflatten([u if is_hole(u) else _times(step, u) for u in self.us])
        at = apply_updates(self.params, scaled)
        if self.box is None:
            return at, [True] * len(self.us)
        qs = self.treedef.flatten_up_to(at)
        inside = [q if is_hole(u) else clip_to(q, *b) for q, u, b in zip(qs, self.us, self.box, strict=True)]
        moving = [is_hole(u) or c == q for c, q, u in zip(inside, qs, self.us, strict=True)]
        return self.treedef.unflatten(inside), moving

    def _slope(self, gradients: list, moving: list) -> jax.Array:
        """The sum of Re(g u) over the elements that move."""
        parts: dict[Names, list] = {(): [jnp.zeros([], self.dtype)]}
        for g, u, m, names in zip(gradients, self.us, moving, self.names, strict=True):
            if not (is_hole(u) or is_hole(g)):
                wide_g, wide_u = widen((g, u), self.dtype)
                product = inner(jnp.conj(wide_g), wide_u if m is True else jnp.where(m, wide_u, 0))
                parts.setdefault(names, []).append(product)
        return sum_over({names: jnp.sum(jnp.stack(products)) for names, products in parts.items()})


class Searched(NamedTuple):
    """The point that a search takes, its last trial, from which the next search goes on, and what to tell of it."""

    point: Point
    tried: jax.Array
    info: Any


def line_search(
    name: str,
    state_type: type,
    info_type: type,
    search: Callable[[Line, Point, jax.Array], Searched],
    *,
    holds_gradient: bool = True,
    verbose: bool = False,
    strict: bool = False,
) -> GradientTransformationExtraArgs:
    """The stage that multiplies updates by the step that a search finds.

    Args:
      state_type: a named tuple of the last step, the value and the gradient there, and an `info_type`.
      info_type: a named tuple of the number of evaluations and of errors, which are infinite before the first search.
      search: from the line, its point at step 0 and the step of the state to what it finds.
      holds_gradient: whether the points and the state have a gradient.
      strict: whether an extra argument that `value_fn` does not take is an error.
    """

    def init(params: Params) -> Any:
        one = jnp.ones([], compute_dtype(params))
        _, *errors = info_type._fields  # type: ignore[attr-defined]  # a named tuple class
        info = info_type(jnp.zeros([], jnp.int32), *(one * jnp.inf for _ in errors))
        return state_type(one, one * jnp.inf, no_gradient(params) if holds_gradient else None, info)

    def update(
        updates: Updates,
        state: OptState,
        params: Params = None,
        *,
        value: Any = None,
        grad: Updates = None,
        value_fn: Callable[..., Any] | None = None,
        bounds: tuple | None = None,
        **extra: Any,
    ) -> tuple[Updates, Any]:
        check_state(name, state, state_type)
        line = Line(name, updates, params, value, grad, value_fn, bounds, extra, strict)
        start = line.start(grad) if holds_gradient else Point(jnp.zeros([], line.dtype), line.value, line.slope)
        point, tried, info = search(line, start, state.learning_rate.astype(line.dtype))
        if verbose:
            jax.debug.print(name + ": step {}, value {}, {}", point.step, point.value, info)
        new = state_type(tried, point.value, point.held, info)
        return line.updates(point.step), jax.tree.map(lambda x, old: x.astype(old.dtype), new, state)

    return GradientTransformationExtraArgs(init, update, needs=("value", "grad", "value_fn"))


def value_and_gradient(f: Callable[..., Any], params: Params) -> tuple[jax.Array, Updates]:
    """The value, and the gradient as `jax.grad` returns it; None for integer parameters."""
    leaves, treedef = jax.tree.flatten(params)
    real = [i for i, p in enumerate(leaves) if _is_inexact(p)]

    def of(some: list) -> jax.Array:
        whole = list(leaves)
        for i, p in zip(real, some, strict=True):
            whole[i] = p
        return jnp.asarray(f(treedef.unflatten(whole)))

    value, gradients = jax.value_and_grad(of)([jnp.asarray(leaves[i]) for i in real])
    by_leaf = dict(zip(real, gradients, strict=True))
    return value, treedef.unflatten([by_leaf.get(i) for i in range(len(leaves))])


def box_leaves(where: str, bounds: Any, treedef: Any, reference: Any, ps: list) -> list[tuple]:
    """The pair (lower, upper) for each leaf; each of the two bounds is None or a tree like the parameters."""
    if not (isinstance(bounds, tuple | list) and len(bounds) == 2):
        raise ValueError(f"{where}: bounds must be a pair (lower, upper), got {type(bounds).__name__}")
    columns = [
        [None] * treedef.num_leaves if b is None else align(treedef, b, where, "the bounds", reference, "the updates")
        for b in bounds
    ]
    if any(jnp.iscomplexobj(p) for p in jax.tree.leaves(ps)):
        raise ValueError(f"{where}: complex parameters have no bounds")
    return list(zip(*columns, strict=True))


def _is_inexact(p: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(p), jnp.inexact)


def _with_known_arguments(where: str, value_fn: Callable, extra: dict[str, Any], strict: bool) -> Callable:
    """`value_fn`, bound to those extra arguments that it takes; others are for other stages, or if `strict` errors."""
    try:
        rest = list(inspect.signature(value_fn).parameters.values())[1:]
    except ValueError:  # a function of C without a signature
        return value_fn
    takes_all = any(x.kind is x.VAR_KEYWORD for x in rest)
    known = extra if takes_all else {x.name: extra[x.name] for x in rest if x.name in extra}
    if strict and len(known) < len(extra):
        raise TypeError(
            f"{where}: value_fn does not take {', '.join(n for n in extra if n not in known)}, which update was given"
        )
    return (lambda params: value_fn(params, **known)) if known else value_fn


def _restricted(u: jax.Array, p: Any, g: Any, i: int, box: list[tuple] | None) -> jax.Array:
    if box is None or is_hole(g):
        return u
    return jnp.where(is_free(jnp.asarray(p), g, *box[i]), u, 0)


def no_gradient(params: Params) -> Updates:
    """Zeros in place of the gradient; None for integer parameters, which have none."""
    return jax.tree.map(lambda x: zeros_like(jnp.asarray(x, jnp.result_type(x))) if _is_inexact(x) else None, params)


def _gradient_like(p: Any, g: Any) -> jax.Array:
    """The gradient as `jax.grad` would give it."""
    return jnp.conj(g).astype(jnp.result_type(p))


def _times(step: jax.Array, u: jax.Array) -> jax.Array:
    wide = widen(u)
    with promotion(u):
        return wide * step.astype(jnp.finfo(wide.dtype).dtype)


def _difference(q: jax.Array, p: Any) -> jax.Array:
    wide_q, wide_p = widen((q, p), compute_dtype(p))
    return wide_q - wide_p
