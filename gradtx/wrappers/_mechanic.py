# SPDX-License-Identifier: Apache-2.0
"""Mechanic, which learns the factor of an optimizer's learning rate, and the loop that it shares with TRAC."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation
from gradtx.core._over_devices import sum_over
from gradtx.core._ranges import NonNegative, Positive, PositiveInt, is_number
from gradtx.core._roles import names_of_leaves
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import align, check_shapes, check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._distance import inner
from gradtx.numerics._safe import abs_sq, safe_sqrt


class MechanicState(NamedTuple):
    """The state of the base optimizer, the number of updates made, r, m, v and s for each decay, and p_1."""

    base_optimizer_state: OptState
    count: jax.Array
    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array
    x0: Params


class Totals(NamedTuple):
    """Inner products over all parameters of the gradient g, the parameters p and the displacement."""

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
    """Moves the parameters to x0 + S D: x0 are the initial parameters, D is the sum of the updates, the displacement.

    A dictionary of arrays is remembered between steps, `start()` before the first; `tune(remembered, totals)`, with
    totals of D before the step, returns S and the next dictionary. D is the field `delta` of the state, a tree; if
    there is no such field, D is (p - x0) / scale(remembered).
    """
    tx = as_inner(f"{name}: base_optimizer", base)
    fields = state_type._fields  # type: ignore[attr-defined]  # a named tuple class
    kept = [n for n in fields if n not in ("base_optimizer_state", "count", "x0", "delta")]

    def init(params: Params) -> OptState:
        trees = {"x0": jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p)), params)}
        if "delta" in fields:
            trees["delta"] = jax.tree.map(lambda p: zeros_like(jnp.asarray(p), compute_dtype(jnp.asarray(p))), params)
        return state_type(base_optimizer_state=tx.init(params), count=jnp.zeros([], jnp.int32), **trees, **start())

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state(name, state, state_type)
        check_said(name, params)
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

        remembered = {n: getattr(state, n) for n in kept}
        new: list = list(steps)
        deltas: list = [None] * len(leaves)
        if "delta" in fields:
            deltas = column(state.delta, "the state's delta")
        elif scale is not None:
            for i in live:
                deltas[i] = jax.jit(_recovered)(ps[i], firsts[i], scale(remembered))
        names, parts = names_of_leaves(updates), {}
        for i in live:
            parts.setdefault(names[i], []).append(jax.jit(_totals)(leaves[i], ps[i], deltas[i]))
        if parts:
            own = {n: jax.tree.map(lambda *xs: sum(xs[1:], start=xs[0]), *totals) for n, totals in parts.items()}
            factor, remembered = tune(remembered, sum_over(own))
            for i in live:
                new[i], deltas[i] = jax.jit(_moved)(ps[i], firsts[i], deltas[i], steps[i], factor)
        if "delta" in fields:
            remembered["delta"] = treedef.unflatten(deltas)
        new_state = state._replace(base_optimizer_state=base_state, count=safe_increment(state.count), **remembered)
        return treedef.unflatten(new), new_state

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"base_optimizer_state": (base, state.base_optimizer_state)}
    )


def alike(x: Any) -> Any:
    """A hyperparameter in the dtype of the totals; Python numbers stay Python numbers, folded in double precision."""
    if is_number(x):
        return x
    return jnp.asarray(x, jnp.result_type(float))


def _recovered(p: Any, first: Any, scale: Any) -> jax.Array:
    p, first = widen((p, first))
    with promotion(p):
        return (p - first) / scale.astype(jnp.real(p).dtype)


def _totals(g: Any, p: Any, delta: Any) -> Totals:
    g, p, delta = widen((g, p, delta))
    with promotion(g, p, delta):
        sums = jnp.sum(abs_sq(g)), jnp.sum(abs_sq(p)), inner(delta, g), inner(delta, p)
    return Totals(*(x.astype(jnp.result_type(float)) for x in sums))


def _moved(p: Any, first: Any, delta: Any, step: Any, factor: Any) -> tuple[jax.Array, jax.Array]:
    """The update to first + factor (delta + step), and the new displacement in its own dtype."""
    wide_p, wide_first, wide, step = widen((p, first, delta, step))
    with promotion(wide_p, step):
        wide = wide + step
        u = factor.astype(jnp.real(wide).dtype) * wide - (wide_p - wide_first)
    return u, wide.astype(jnp.result_type(delta))


@transformation
def mechanize(
    base_optimizer: Transformation,
    weight_decay: NonNegative = 1e-2,
    eps: Positive = 1e-8,
    s_init: Positive = 1e-6,
    num_betas: PositiveInt = 6,
) -> GradientTransformationExtraArgs:
    """Mechanic: scales the sum D of an optimizer's updates by S, the sum of one s for each decay b = 0.9, 0.99, ...:

    ```
    h = -<D, g + weight_decay S (‖g‖ / ‖p‖) p>        r = b r + s min(max(h, -m), m)
    m = max(b m, |h| + eps)                           v = b² v + h²
    s = (s_init m / num_betas + max(r, 0)) / (sqrt(v) + eps)        S = sum of all s
    p = p_1 + S D
    ```

    In h, D is the sum before the step. D is not stored, but computed as (p - p_1) / S, so use parameters in at least
    float32.

    Args:
      base_optimizer: an optimizer with a learning rate of 1, or a schedule whose peak is 1.
      weight_decay: the strength of the term in h that keeps S small; the parameters are not decayed.
      s_init: each s at the start; choose it far too small, as S grows fast.
      num_betas: the number of decays b.

    Reference: Cutkosky, Defazio and Mehta 2023, arXiv:2306.00144, algorithm 1, and their code.
    """

    def start():
        zeros = jnp.zeros([num_betas], jnp.result_type(float))
        return {"r": zeros, "m": jnp.copy(zeros), "v": jnp.copy(zeros), "s": jnp.full_like(zeros, s_init)}

    def tune(old, totals):
        r, m, v, s = (old[n] for n in "rmvs")
        b = jnp.asarray([1 - 0.1 ** (k + 1) for k in range(num_betas)], s.dtype)
        pull = alike(weight_decay) * jnp.sum(s) * safe_sqrt(totals.g_g) / (safe_sqrt(totals.p_p) + alike(eps))
        h = -(totals.displacement_g + pull * totals.displacement_p)
        r = b * r + s * jnp.clip(h, -m, m)
        m = jnp.maximum(b * m, jnp.abs(h) + alike(eps))
        v = b**2 * v + h**2
        s = (alike(s_init) / num_betas * m + jnp.maximum(r, 0)) / (safe_sqrt(v) + alike(eps))
        return jnp.sum(s), {"r": r, "m": m, "v": v, "s": s}

    return scaled_displacement(
        "mechanize", base_optimizer, MechanicState, start, tune, lambda old: jnp.sum(old["s"]) + alike(eps)
    )
