# SPDX-License-Identifier: Apache-2.0
"""Sharpness-aware minimization."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._apply import apply_updates
from gradtx.core._branching import branch
from gradtx.core._counts import in_place_of, safe_increment
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._evaluation import eval_from, eval_params
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._kinds import AxisNames
from gradtx.core._needs import needs
from gradtx.core._ranges import NonNegative, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs, Inner, Transformation, as_inner
from gradtx.core._trees import align, check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._distance import inner
from gradtx.numerics._safe import safe_divide


class SAMState(NamedTuple):
    """Steps since the last descent, the states of both optimizers, and the parameters before the ascent (None in opaque
    mode).
    """

    steps_since_sync: jax.Array
    opt_state: OptState
    adv_state: OptState
    cache: Params | None

    main_part = "opt_state"

    def eval_params(self, params: Params) -> Params:
        """The parameters from before the ascent, if one has begun."""
        if self.cache is not None:
            away = self.steps_since_sync > 0
            params = eval_from(lambda p, held: jnp.where(away, held, p), params, self.cache)
        return eval_params(self.opt_state, params)


class GSAMState(NamedTuple):
    """As `SAMState`, with the gradients before the ascent, which GSAM compares with those after it."""

    steps_since_sync: jax.Array
    opt_state: OptState
    adv_state: OptState
    cache: Params
    gradients: Updates

    main_part = SAMState.main_part
    eval_params = SAMState.eval_params


class _Clean(NamedTuple):
    gradients: Updates


def _overlap(h, g, p, t):
    return inner(g, h), inner(h, h)


def _along(t, total, *, alpha):
    return alpha, safe_divide(*total)


def _without_gap(h, g, p, t, common):
    alpha, along = common
    return h - alpha * (g - along * h), g


# Made once, so that it is compiled once; alpha is its extra argument.
_GAP = Inner(per_parameter(None, _without_gap, _Clean, measure=_overlap, shared=_along, needs=("alpha",)))


@transformation
def sam(
    optimizer: Transformation,
    adv_optimizer: Any,
    sync_period: PositiveInt = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: AxisNames | None = None,
    *,
    alpha: NonNegative | None = None,
) -> GradientTransformationExtraArgs:
    """Descends with the gradient at a point q of higher loss nearby, reached by `sync_period - 1` steps of ascent:

    ```
    q = p - (updates of adv_optimizer, from the gradients at p, then at q, ...)
    p = p + optimizer's update from the gradient at q
    ```

    Each call of `update` is either one step of ascent or the descent, which also returns to p. The ascent of SAM is
    `chain(normalize(), sgd(rho))`: q = p + rho g / ‖g‖. That of ASAM, which is invariant to the scale of parameters, is
    `chain(T, normalize(), T, sgd(rho))` with T = `scale_by_param_magnitude()`.

    Args:
      optimizer: the optimizer of the descent.
      adv_optimizer: the optimizer of the ascent, a minimizer whose updates are subtracted.
      sync_period: the number of gradients for one descent, one more than there are steps of ascent.
      reset_state: whether the state of `adv_optimizer` starts anew after each descent.
      opaque_mode: whether one call makes the ascent and the descent; `update` then needs `grad_fn(params, i)`, which
        returns the i-th further gradient, i from 0.
      batch_axis_name: an axis of `jax.pmap`, `jax.vmap` or `jax.shard_map` over which the descent averages gradients.
      alpha: the factor of GSAM; None for SAM. The optimizer gets h - alpha (g - h <g, h> / ‖h‖²), where g is the
        gradient at p and h that at q; the term orthogonal to h reduces the gap between the losses at p and q.

    Raises:
      ValueError: without parameters, or without `grad_fn` in opaque mode.

    References: Foret et al. 2020, arXiv:2010.01412; Kwon et al. 2021, arXiv:2102.11600 (ASAM); Zhuang et al. 2022,
    arXiv:2203.08065 (GSAM).
    """
    descent = as_inner("sam: optimizer", optimizer)
    ascent = as_inner("sam: adv_optimizer", adv_optimizer)
    holds_gradients = alpha is not None and not opaque_mode

    def init(params: Params) -> SAMState | GSAMState:
        cache = None if opaque_mode else jax.tree.map(jnp.array, params)
        state = SAMState(jnp.zeros([], jnp.int32), descent.init(params), ascent.init(params), cache)
        return GSAMState(*state, jax.tree.map(lambda p: zeros_like(widen(p)), params)) if holds_gradients else state

    def climb(g: Updates, adv_state: OptState, q: Params, extra: dict) -> tuple[Updates, OptState]:
        down, adv_state = ascent.update(g, adv_state, q, **extra)
        return _map(lambda u: -u, q, down), adv_state

    def fall(
        g: Updates, start: Updates, state: Any, adv_state: OptState, p: Params, extra: dict
    ) -> tuple[Updates, Any]:
        if batch_axis_name is not None:
            g, start = jax.lax.pmean((g, start), batch_axis_name)
        if alpha is not None:
            g, _ = _GAP.update(g, _Clean(start), alpha=alpha)
        updates, opt_state = descent.update(g, state.opt_state, p, **extra)
        adv_state = in_place_of(adv_state, ascent.init(apply_updates(p, updates))) if reset_state else adv_state
        return updates, state._replace(opt_state=opt_state, adv_state=adv_state)

    def round_by_round(g: Updates, state: Any, params: Params, extra: dict) -> tuple[Updates, Any]:
        grad_fn: Callable[..., Any] | None = extra.pop("grad_fn", None)
        if grad_fn is None:
            raise ValueError("sam: opaque_mode=True needs grad_fn: call update(updates, state, params, grad_fn=...)")
        q, adv_state, start = params, state.adv_state, None if alpha is None else g
        for i in range(sync_period - 1):
            up, adv_state = climb(g, adv_state, q, extra)
            q = apply_updates(q, up)
            g = _where_given(grad_fn(q, i), g)
        return fall(g, start, state, adv_state, params, extra)

    def step_by_step(g: Updates, state: Any, params: Params, extra: dict) -> tuple[Updates, Any]:
        start = state.steps_since_sync == 0
        cache = jax.tree.map(lambda held, p: jnp.where(start, p, held), state.cache, params)
        state = state._replace(cache=cache)
        if holds_gradients:
            state = state._replace(gradients=_latest(g, state.gradients, start))

        def up() -> tuple[Updates, Any]:
            updates, adv_state = climb(g, state.adv_state, params, extra)
            return updates, state._replace(steps_since_sync=safe_increment(state.steps_since_sync), adv_state=adv_state)

        def down() -> tuple[Updates, Any]:
            updates, new = fall(g, getattr(state, "gradients", None), state, state.adv_state, cache, extra)
            back = _map(lambda u, p, held: (held - p) + u, params, updates, params, cache)
            return back, new._replace(steps_since_sync=jnp.zeros([], jnp.int32))

        return branch(state.steps_since_sync == sync_period - 1, down, up)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, Any]:
        check_state("sam", state, GSAMState if holds_gradients else SAMState)
        if params is None:
            raise ValueError("sam: update needs the parameters: call update(updates, state, params)")
        return (round_by_round if opaque_mode else step_by_step)(updates, state, params, extra)

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        return {"opt_state": (optimizer, state.opt_state), "adv_state": (adv_optimizer, state.adv_state)}

    needed = ("grad_fn", *needs(optimizer), *needs(adv_optimizer)) if opaque_mode else None
    return GradientTransformationExtraArgs(init, update, parts=parts, needs=needed)


def _where_given(g: Updates, reference: Updates) -> Updates:
    """`g`, but with None or float0 where `reference` has it."""
    leaves, treedef = jax.tree.flatten(reference, is_leaf=is_none)
    rows = align(treedef, g, "sam", "the gradients of grad_fn", reference, "the gradients given")
    return jax.tree.unflatten(treedef, [r if is_hole(r) else x for r, x in zip(leaves, rows, strict=True)])


def _map(f: Callable, reference: Params, updates: Updates, *trees: Any) -> Updates:
    """`f` on each update and the leaves at its place, in at least float32, the same dtype for ascent and descent."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    columns = [align(treedef, t, "sam", "the parameters", updates, "the updates") for t in (reference, *trees)]
    rows = [
        u if is_hole(u) else f(*widen((u, *rest), compute_dtype(p)))
        for u, p, *rest in zip(leaves, *columns, strict=True)
    ]
    return jax.tree.unflatten(treedef, rows)


def _latest(g: Updates, held: Updates, start: jax.Array) -> Updates:
    """`g` at the start of a round, else the gradients held since then."""
    leaves, treedef = jax.tree.flatten(g, is_leaf=is_none)
    rows = align(treedef, held, "sam", "the state's gradients", g, "the gradients")
    new = [h if is_hole(x) else jnp.where(start, x.astype(h.dtype), h) for x, h in zip(leaves, rows, strict=True)]
    return jax.tree.unflatten(treedef, new)
