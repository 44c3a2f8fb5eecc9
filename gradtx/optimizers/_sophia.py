# SPDX-License-Identifier: Apache-2.0
"""Sophia: momentum divided by an estimated diagonal of the Hessian, and clipped."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._combine import chain
from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import widen
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._over_devices import sum_over
from gradtx.core._ranges import Decay, DType, Limit, NonNegative, NonNegativeInt, Positive, PositiveInt
from gradtx.core._roles import by_names, is_full_box
from gradtx.core._transformation import GradientTransformationExtraArgs, Inner, Transformation, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.transforms._hessian_diagonal import hutchinson_estimator_diag_hessian
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams

_HUTCHINSON = hutchinson_estimator_diag_hessian()


class SophiaState(NamedTuple):
    """The number of updates made, the averages of g and of the Hessian's diagonal, and the estimator's state."""

    count: jax.Array
    mu: Updates
    nu: Updates
    hessian_fn_state: OptState


class _Moments(NamedTuple):
    mu: Updates
    nu: Updates


class _Curvature(NamedTuple):
    nu: Updates


def _blend(h, nu, p, t, weights):
    return h, weights[0] * nu + weights[1] * h


def _direct(g, slots, p, t, common):
    (of_mu, of_g), gamma, eps, limit = common
    mu, nu = of_mu * slots[0] + of_g * g, slots[1]
    size = jnp.maximum(gamma * nu, eps)
    # Without curvature and eps the quotient is infinite and the clip decides, but 0 / 0 is 0.
    return jnp.clip(mu / jnp.where((mu == 0) & (size == 0), 1, size), -limit, limit), (mu, nu)


# Made once, so that they are compiled once; the hyperparameters of the step are their extra arguments.
_CURVATURE = Inner(
    per_parameter(None, _blend, _Curvature, shared=lambda t, total, *, old, new: (old, new), needs=("old", "new"))
)
_DIRECTION = Inner(
    per_parameter(
        None,
        _direct,
        _Moments,
        shared=lambda t, total, *, old, new, gamma, eps, limit: ((old, new), gamma, eps, limit),
        needs=("old", "new", "gamma", "eps", "limit"),
    )
)


@transformation
def scale_by_sophia(
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    gamma: Positive = 0.01,
    clip_threshold: Limit | None = 1.0,
    update_interval: PositiveInt = 10,
    hessian_diagonal_fn: Transformation = _HUTCHINSON,
    mu_dtype: DType = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: NonNegativeInt = 0,
) -> GradientTransformationExtraArgs:
    """The direction u of `sophia`, which has the formula.

    Args:
      eps: the least denominator.
      gamma, clip_threshold, update_interval, hessian_diagonal_fn: see `sophia`.
      verbose, print_win_rate_every_n_steps: see `sophia`.
    """
    estimator = as_inner("scale_by_sophia: hessian_diagonal_fn", hessian_diagonal_fn)
    limit = jnp.inf if clip_threshold is None else clip_threshold

    def init(params: Params) -> SophiaState:
        wide = jax.tree.map(widen, params)
        mu = jax.tree.map(lambda p: zeros_like(p, mu_dtype), wide)
        nu = jax.tree.map(lambda p: zeros_like(p, real=True), wide)
        return SophiaState(jnp.zeros([], jnp.int32), mu, nu, estimator.init(params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("scale_by_sophia", state, SophiaState)

        def refreshed() -> tuple[Updates, OptState]:
            estimate, fn_state = estimator.update(updates, state.hessian_fn_state, params, **extra)
            return _CURVATURE.update(estimate, _Curvature(state.nu), old=b2, new=1 - b2)[1].nu, fn_state

        due = state.count % update_interval == 0
        nu, fn_state = branch(due, refreshed, lambda: (state.nu, state.hessian_fn_state))
        moments, numbers = _Moments(state.mu, nu), {"gamma": gamma, "eps": eps, "limit": limit}
        updates, (mu, nu) = _DIRECTION.update(updates, moments, old=b1, new=1 - b1, **numbers)
        count = safe_increment(state.count)
        if verbose:
            _print_win_rate(updates, limit, count % max(print_win_rate_every_n_steps, 1) == 0)
        return updates, SophiaState(count, mu, nu, fn_state)

    return GradientTransformationExtraArgs(init, update)


def _print_win_rate(updates: Updates, limit: Any, due: jax.Array) -> None:
    def rate() -> jax.Array:
        def counted(leaves: list) -> tuple[jax.Array, jax.Array]:
            inside = [jnp.sum(jnp.abs(u) < jnp.asarray(limit, u.dtype)) for u in (jnp.zeros(0), *leaves)]
            return jnp.sum(jnp.stack(inside)).astype(float), jnp.asarray(float(sum(u.size for u in leaves)))

        parts = by_names(jax.tree.leaves(updates, is_leaf=is_full_box))
        inside, number = sum_over({names: counted(leaves) for names, leaves in parts.items()})
        return inside / jnp.maximum(number, 1)

    message = "Sophia's win rate (the part not clipped): {rate}"
    branch(due, lambda: jax.debug.print(message, rate=rate()), lambda: None)


@transformation
def sophia(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    weight_decay_mask: MaskOfParams | None = None,
    gamma: Positive = 0.01,
    clip_threshold: Limit | None = 1.0,
    update_interval: PositiveInt = 10,
    hessian_diagonal_fn: Any = _HUTCHINSON,
    mu_dtype: DType = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: NonNegativeInt = 0,
) -> GradientTransformationExtraArgs:
    """Sophia-H, a light second-order method; `update` needs `obj_fn(params) -> value` for its estimates:

    ```
    h = b2 h + (1 - b2) estimate   at the first step and after every update_interval steps
    m = b1 m + (1 - b1) g          u = clip(m / max(gamma h, eps), -clip_threshold, clip_threshold)
    p = p - learning_rate (u + weight_decay p)
    ```

    Args:
      eps: the least denominator.
      gamma: the factor of h; the larger it is, the fewer elements are clipped.
      clip_threshold: the largest |u|; None for no clipping.
      update_interval: the number of steps between two estimates.
      hessian_diagonal_fn: a transformation whose updates are the estimate; it gets the extra arguments of `update`.
      verbose: whether to print the fraction of elements that are not clipped.
      print_win_rate_every_n_steps: the number of steps between two prints; 0 for a print at every step.

    Reference: Liu et al. 2023, arXiv:2305.14342, algorithm 3.
    """
    numbers = b1, b2, eps, gamma, clip_threshold, update_interval
    printing = verbose, print_win_rate_every_n_steps
    stage = scale_by_sophia(*numbers, hessian_diagonal_fn, mu_dtype, *printing)
    return chain(stage, add_decayed_weights(weight_decay, weight_decay_mask), scale_by_lr(learning_rate))
