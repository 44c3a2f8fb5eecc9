# SPDX-License-Identifier: Apache-2.0
"""Generalized primal averaging: gradients at a point between an optimizer's iterate and the average of iterates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._dtypes import widen
from gradtx.core._evaluation import begun, eval_from, set_aside
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType
from gradtx.core._transformation import GradientTransformationExtraArgs, Inner, Transformation, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._averages import copy_of
from gradtx.numerics._interpolation import average_behind, averaged_step
from gradtx.wrappers._schedule_free_averaging import Interpolation


class PrimalAveragingState(NamedTuple):
    """The last mu_y (0 before the first update), the state of the base optimizer, and its iterate z; `eval_params`
    returns the average x.
    """

    mu_y: jax.Array
    base_optimizer_state: OptState
    z: Updates

    def eval_params(self, params: Params) -> Params:
        mu_y = _or_one(self.mu_y)
        return eval_from(lambda y, z: average_behind(y, z, mu_y), params, self.z)


class _Iterates(NamedTuple):
    mu_y: jax.Array
    z: Updates


def _weights(t, total, memory, *, weight, mu_y):
    return (weight, _or_one(memory["mu_y"]), mu_y), {"mu_y": mu_y}


def _or_one(mu_y):
    """mu_y, or 1 before the first update: y and z are equal then, whatever it is."""
    return jnp.where(mu_y == 0, jnp.ones_like(mu_y), mu_y)


def _step(u, z, p, t, common):
    return averaged_step(u, p, begun(z, p), *common)


def _idle(z, t, memory):
    return set_aside(z, memory["mu_y"] == 0)


# Made once, so that it is compiled once; the hyperparameters of the step are its extra arguments.
_AVERAGING = Inner(
    per_parameter(
        None, _step, _Iterates, shared=_weights, memory=lambda: {"mu_y": 0.0}, needs=("weight", "mu_y"), idle=_idle
    )
)


@transformation
def primal_averaging(
    base_optimizer: Transformation, mu_x: Decay = 0.9967, mu_y: Interpolation = 0.8, state_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """Runs an optimizer on z with gradients taken at y, a point between z and the moving average x of its iterates:

    ```
    z = z + base_optimizer's update from the gradient at y
    x = mu_x x + (1 - mu_x) z
    y = mu_y x + (1 - mu_y) z
    ```

    The parameters that the caller holds are y; validate, save and deploy x: `eval_params(state, params)`. The base
    optimizer sees z as the parameters, so it decays the weights of z.

    Args:
      base_optimizer: the optimizer that moves z.
      mu_x: the decay of the average; 0.9967 corresponds to DiLoCo with about 32 inner steps.
      mu_y: the weight of x in y, in (0, 1]; 0.7 to 0.8 are usual. If it is a schedule, y moves as soon as it changes.
      state_dtype: the dtype in which z is stored; None for at least float32.

    Reference: Defazio et al. 2025, arXiv:2512.17131.
    """
    tx = as_inner("primal_averaging: base_optimizer", base_optimizer)

    def init(params: Params) -> PrimalAveragingState:
        start = jnp.zeros([], jnp.result_type(float))
        z = jax.tree.map(lambda p: copy_of(widen(p), state_dtype), params)
        return PrimalAveragingState(start, tx.init(params), z)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("primal_averaging", state, PrimalAveragingState)
        if params is None:
            raise ValueError("primal_averaging: update needs the parameters: call update(updates, state, params)")
        updates, base = tx.update(updates, state.base_optimizer_state, jax.tree.map(begun, state.z, params), **extra)
        weights = {"weight": 1 - mu_x, "mu_y": mu_y}
        updates, new = _AVERAGING.update(updates, _Iterates(state.mu_y, state.z), params, **weights)
        return updates, PrimalAveragingState(new.mu_y, base, new.z)

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"base_optimizer_state": (base_optimizer, state.base_optimizer_state)}
    )
