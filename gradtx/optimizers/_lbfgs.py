# SPDX-License-Identifier: Apache-2.0
"""L-BFGS: directions from an estimate of the inverse Hessian by the latest steps and changes of the gradient."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain, identity
from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation
from gradtx.core._over_devices import Names, any_over, reduced_over, sum_over
from gradtx.core._ranges import PositiveInt
from gradtx.core._roles import names_of_leaves
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation
from gradtx.core._trees import align, check_shapes, check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._box import is_free
from gradtx.numerics._distance import inner
from gradtx.numerics._safe import safe_divide, safe_sqrt
from gradtx.transforms._lines import box_leaves
from gradtx.transforms._linesearch import scale_by_zoom_linesearch
from gradtx.transforms._scaling import scale, scale_by_lr


class ScaleByLBFGSState(NamedTuple):
    """Updates made, the last parameters and gradients, the latest differences s and y of these, and 1 / <s, y>.

    A weight of 0 marks a place without a pair. The pair of step t is at place (t - 1) mod memory_size.
    """

    count: jax.Array
    params: Params
    updates: Updates
    diff_params_memory: Params
    diff_updates_memory: Updates
    weights_memory: jax.Array


@transformation
def scale_by_lbfgs(memory_size: PositiveInt = 10, scale_init_precond: bool = True) -> GradientTransformationExtraArgs:
    """u = H g, where H estimates the inverse Hessian from the latest pairs s = p - old p, y = g - old g:

    ```
    H = V' H V + s s' / <s, y>,  V = 1 - y s' / <s, y>,  from the oldest pair to the newest, starting with gamma
    gamma = <s, y> / <y, y> of the newest pair;  min(1, 1 / ‖g‖) before there is one
    ```

    H is never formed: two loops over the pairs need only inner products. A pair is left out if <s, y> is not positive
    (up to rounding) or not finite, so that H is positive definite; all pairs are left out if p has not moved. With the
    keyword argument `bounds=(lower, upper)` of `update`, elements of p at a bound that descent would cross get no
    update, and H is that of the other elements (the two-metric projection of Bertsekas 1982).

    Args:
      memory_size: the number of pairs that are kept.
      scale_init_precond: False for gamma = 1.

    Reference: Nocedal and Wright 2006, Numerical Optimization, algorithm 7.4; Liu and Nocedal 1989.
    """
    name = "scale_by_lbfgs"

    def init(params: Params) -> ScaleByLBFGSState:
        def one(p: Any) -> jax.Array:
            return zeros_like(widen(p))

        def many(p: Any) -> jax.Array:
            return jnp.repeat(one(p)[None], memory_size, axis=0)

        trees = [jax.tree.map(slot, params) for slot in (one, one, many, many)]
        weights = jnp.zeros(memory_size, compute_dtype(params))
        return ScaleByLBFGSState(jnp.zeros([], jnp.int32), *trees, weights_memory=weights)

    def update(
        updates: Updates, state: OptState, params: Params = None, *, bounds: tuple | None = None, **extra: Any
    ) -> tuple[Updates, ScaleByLBFGSState]:
        check_state(name, state, ScaleByLBFGSState)
        check_said(name, params)
        if params is None:
            raise ValueError(f"{name}: update needs the parameters: call update(updates, state, params)")
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        ps = align(treedef, params, name, "the parameters", updates, "the gradients")
        check_shapes(name, "gradient", updates, leaves, ps)
        slots = [align(treedef, t, name, "the state's trees", updates, "the gradients") for t in state[1:5]]
        box = None if bounds is None else box_leaves(name, bounds, treedef, updates, ps)
        live = [i for i, g in enumerate(leaves) if not is_hole(g)]
        here = None if box is None else [box[i] for i in live]
        some = [[column[i] for i in live] for column in (ps, leaves, *slots)]
        names = names_of_leaves(updates)
        u, new, weights = _step(
            *some[:2],
            some[2:],
            state.weights_memory,
            state.count,
            here,
            scaled=scale_init_precond,
            products=Products(tuple(names[i] for i in live)),
        )
        for column, part in zip((leaves, *slots), (u, *new), strict=True):
            for i, x in zip(live, part, strict=True):
                column[i] = x
        trees = [treedef.unflatten(column) for column in slots]
        return treedef.unflatten(leaves), ScaleByLBFGSState(safe_increment(state.count), *trees, weights_memory=weights)

    return GradientTransformationExtraArgs(init, update)


class Products(NamedTuple):
    """Inner products of lists of arrays, given the mesh axes between whose devices each array is split."""

    names: tuple[Names, ...]

    def inner(self, xs: list, ys: list) -> jax.Array:
        parts: dict[Names, list] = {}
        for names, x, y in zip(self.names, xs, ys, strict=True):
            parts.setdefault(names, []).append(inner(x, y))
        return sum_over({n: jnp.sum(jnp.stack(found)) for n, found in parts.items()}) if parts else jnp.zeros([])

    def finite(self, xs: list) -> jax.Array:
        """Whether all numbers are finite."""
        parts: dict[Names, list] = {(): [jnp.zeros([], bool)]}
        for names, x in zip(self.names, xs, strict=True):
            parts.setdefault(names, []).append(~jnp.all(jnp.isfinite(x)))
        return ~any_over({n: jnp.any(jnp.stack(found)) for n, found in parts.items()})

    def norm(self, xs: list) -> jax.Array:
        """The norm of all arrays together, without overflow of the squares."""
        if not xs:
            return jnp.zeros([])
        parts: dict[Names, list] = {}
        for names, x in zip(self.names, xs, strict=True):
            parts.setdefault(names, []).append(jnp.max(jnp.abs(x), initial=1))
        own = {n: jnp.max(jnp.stack(found)) for n, found in parts.items()}
        largest = reduced_over(own, jnp.max, jax.lax.pmax)
        return largest * safe_sqrt(self.inner(*[[x / largest for x in xs]] * 2))


@functools.partial(jax.jit, static_argnames=("scaled", "products"))
def _step(
    ps: list,
    gs: list,
    slots: list,
    weights: jax.Array,
    count: jax.Array,
    box: list | None,
    scaled: bool,
    products: Products,
) -> tuple[list, list, jax.Array]:
    """The updates, the new slots and the new weights; lists have an entry for each leaf."""
    dtype = weights.dtype
    free = None if box is None else [is_free(p, g, *b) for p, g, b in zip(ps, gs, box, strict=True)]
    ps, gs = widen((ps, gs), dtype)
    old_ps, old_gs, all_s, all_y = widen(slots, dtype)
    with promotion(ps, gs):
        s, y = ([a - b for a, b in zip(*pair, strict=True)] for pair in ((ps, old_ps), (gs, old_gs)))
        finite = jnp.all(jnp.isfinite(weights)) & products.finite(ps) & products.finite(gs)
        weight = jnp.where(finite & (count > 0), _weight(products.inner(s, y), products.inner(y, y)), 0)
        # The parameters did not move at all along the last direction: drop the pairs, so that the next one is -g.
        weights = jnp.where((count > 0) & finite & (products.inner(s, s) == 0), 0, weights)
        place = jnp.maximum(count - 1, 0) % weights.shape[0]
        weights = weights.at[place].set(weight)
        all_s, all_y = (
            [m.at[place].set(jnp.where(weight > 0, x, 0)) for m, x in zip(*pair, strict=True)]
            for pair in ((all_s, s), (all_y, y))
        )
        direction = _two_loops(gs, all_s, all_y, weights, place, free, scaled, products)
        kept = [[jnp.where(finite, x, o) for x, o in zip(*pair, strict=True)] for pair in ((ps, old_ps), (gs, old_gs))]
    new = jax.tree.map(lambda x, old: x.astype(old.dtype), [*kept, all_s, all_y], slots)
    return direction, new, weights


def _two_loops(
    gs: list,
    all_s: list,
    all_y: list,
    weights: jax.Array,
    newest: jax.Array,
    free: list | None,
    scaled: bool,
    products: Products,
) -> list:
    """H g; with `free`, for the free elements only, from the same elements of the pairs."""
    if free is not None:
        gs = [jnp.where(f, g, 0) for f, g in zip(free, gs, strict=True)]
        all_s, all_y = ([jnp.where(f[None], m, 0) for f, m in zip(free, ms, strict=True)] for ms in (all_s, all_y))
        weights = jnp.where(
            weights > 0, jax.vmap(lambda s, y: _weight(products.inner(s, y), products.inner(y, y)))(all_s, all_y), 0
        )
    order = (newest - jnp.arange(weights.shape[0], dtype=newest.dtype)) % weights.shape[0]

    def down(q: list, i: jax.Array) -> tuple[list, jax.Array]:
        along = weights[i] * products.inner([m[i] for m in all_s], q)
        return [x - along * m[i] for x, m in zip(q, all_y, strict=True)], along

    def up(r: list, step: tuple) -> tuple[list, None]:
        i, along = step
        rest = along - weights[i] * products.inner([m[i] for m in all_y], r)
        return [x + rest * m[i] for x, m in zip(r, all_s, strict=True)], None

    q, alongs = jax.lax.scan(down, gs, order)
    gamma = jnp.ones([], weights.dtype)
    if scaled:
        last = order[jnp.argmax(weights[order] > 0)]
        square = weights[last] * products.inner(*[[m[last] for m in all_y]] * 2)
        gamma = jnp.where(square > 0, safe_divide(gamma, square), 1 / jnp.maximum(products.norm(gs), 1))
    r, _ = jax.lax.scan(up, [gamma * x for x in q], (order, alongs), reverse=True)
    return r


def _weight(s_y: jax.Array, y_y: jax.Array) -> jax.Array:
    """1 / <s, y>, or 0 for a pair that is to be left out."""
    weight = 1 / jnp.where(s_y > 0, s_y, 1)
    good = (s_y > float(jnp.finfo(s_y.dtype).eps) * y_y) & jnp.isfinite(y_y) & jnp.isfinite(weight)
    return jnp.where(good, weight, 0)


@transformation
def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: PositiveInt = 10,
    scale_init_precond: bool = True,
    linesearch: Transformation | None = scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one"),  # noqa: B008  # a value
) -> GradientTransformationExtraArgs:
    """L-BFGS: a line search along -H g, with the H of `scale_by_lbfgs`.

    `update` needs `value`, `grad` and `value_fn` for the line search; `minimize` runs the whole loop.

    Args:
      learning_rate: the factor of the direction, before the line search; None for 1.
      memory_size, scale_init_precond: see `scale_by_lbfgs`.
      linesearch: the last stage, which scales the update; None for no line search, then give a learning rate.

    Reference: Nocedal and Wright 2006, Numerical Optimization, algorithm 7.5; Liu and Nocedal 1989.
    """
    rate = scale(-1.0) if learning_rate is None else scale_by_lr(learning_rate)
    search = identity() if linesearch is None else linesearch
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), rate, search)
