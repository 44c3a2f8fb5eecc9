# SPDX-License-Identifier: Apache-2.0
"""Estimators of the diagonal of the Hessian, as stages that return the estimate in place of updates."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._factory import transformation
from gradtx.core._over_devices import drawn
from gradtx.core._ranges import Positive
from gradtx.core._roles import splits_of
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._trees import align, is_hole, is_none
from gradtx.core._types import EmptyState, OptState, Params, Updates
from gradtx.numerics._keys import key_maker
from gradtx.numerics._safe import abs_sq


class HutchinsonState(NamedTuple):
    """The random key for the next estimate."""

    key: jax.Array


@transformation
def hutchinson_estimator_diag_hessian(
    random_seed: Any = None, *, probes: Literal["rademacher", "normal"] = "rademacher"
) -> GradientTransformationExtraArgs:
    """v * (H v) for random v: an unbiased estimate of the diagonal of the Hessian H of `obj_fn` at the parameters.

    `update` needs `obj_fn(params) -> value`. H v costs about as much as two gradients; H is never formed.

    Args:
      random_seed: a key of `jax.random`, or a whole number to make one from; None for 0.
      probes: the distribution of v: "rademacher" for ±1 with equal probability, where only the elements off the
        diagonal add variance, or "normal".

    References: Hutchinson 1990; Bekas, Kokiopoulou and Saad 2007 (the diagonal).
    """
    name = "hutchinson_estimator_diag_hessian"
    fresh_key = key_maker(f"{name}: random_seed", 0 if random_seed is None else random_seed, typed=False)
    draw = jax.random.rademacher if probes == "rademacher" else jax.random.normal

    def init(params: Params) -> HutchinsonState:
        return HutchinsonState(fresh_key())

    def update(
        updates: Updates,
        state: OptState,
        params: Params = None,
        *,
        obj_fn: Callable[..., Any] | None = None,
        **extra: Any,
    ) -> tuple[Updates, OptState]:
        if params is None:
            raise ValueError(f"{name}: update needs the parameters: call update(updates, state, params, obj_fn=...)")
        check_said(name, params)
        if obj_fn is None:
            raise ValueError(f"{name}: update needs obj_fn: call update(updates, state, params, obj_fn=...)")
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        ps = align(treedef, params, name, "the parameters", updates, "the gradients")
        live = [i for i, g in enumerate(leaves) if not is_hole(g)]

        def value(some: list) -> jax.Array:
            whole = list(ps)
            for i, p in zip(live, some, strict=True):
                whole[i] = p
            return obj_fn(jax.tree.unflatten(treedef, whole))

        key, used = jax.random.split(state.key)
        keys = jax.random.split(used, max(len(live), 1))
        at = [jnp.asarray(ps[i]) for i in live]
        splits = splits_of(updates)
        v = [
            drawn(functools.partial(draw, k, dtype=p.dtype), p.shape, splits[i])
            for i, k, p in zip(live, keys, at, strict=False)
        ]
        _, hv = jax.jvp(jax.grad(value), (at,), (v,)) if live else (None, [])
        for i, x, y in zip(live, v, hv, strict=True):
            wide_x, wide_y = widen((x, y), compute_dtype(x))
            leaves[i] = wide_x * wide_y
        return jax.tree.unflatten(treedef, leaves), state._replace(key=key)

    return GradientTransformationExtraArgs(init, update, needs=["obj_fn"])


@transformation
def gauss_newton_bartlett(batch_size: Positive) -> GradientTransformationExtraArgs:
    """batch_size * ĝ², where ĝ is the gradient of the mean loss for labels drawn from the model's own predictions.

    Its expectation is the diagonal of the Gauss-Newton matrix, which is never negative. `update` needs `sampled_grad`:
    ĝ, or a function from the parameters to it, which runs only when an estimate is due.

    Args:
      batch_size: the number of examples over which the loss is a mean.

    Reference: Liu et al. 2023, arXiv:2305.14342, algorithm 2.
    """

    def init(params: Params) -> EmptyState:
        return EmptyState()

    def update(
        updates: Updates, state: OptState, params: Params = None, *, sampled_grad: Any = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        if sampled_grad is None:
            raise ValueError(
                "gauss_newton_bartlett: update needs sampled_grad: "
                "call update(updates, state, params, sampled_grad=...)"
            )
        if callable(sampled_grad) and params is None:
            raise ValueError("gauss_newton_bartlett: update needs the parameters, for the function sampled_grad")
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        sampled = sampled_grad(params) if callable(sampled_grad) else sampled_grad
        rows = align(treedef, sampled, "gauss_newton_bartlett", "sampled_grad", updates, "the gradients")
        pairs = zip(leaves, rows, strict=True)
        new = [None if is_hole(g) or is_hole(x) else _scaled_square(x, batch_size) for g, x in pairs]
        return jax.tree.unflatten(treedef, new), state

    return GradientTransformationExtraArgs(init, update, needs=["sampled_grad"])


@jax.jit
def _scaled_square(x: jax.Array, batch_size: Any) -> jax.Array:
    x, batch_size = widen((x, batch_size), compute_dtype(x))
    return batch_size * abs_sq(x)
