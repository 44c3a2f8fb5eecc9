# SPDX-License-Identifier: Apache-2.0
"""Schedule-Free learning: averaging of the iterates in place of a decaying learning rate."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._counts import safe_increment
from gradtx.core._evaluation import begun, eval_from, set_aside
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import DType, NonNegative, Range
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import copy_of
from gradtx.numerics._interpolation import average_behind, averaged_step
from gradtx.numerics._safe import safe_divide
from gradtx.wrappers._repacking import repack_state

# Not 0, since then the average could not be computed from y and z.
Interpolation = Annotated[Any, Range(low=0.0, high=1.0, low_open=True, example=0.9)]


class ScheduleFreeAveragingState(NamedTuple):
    """The updates made, the last b1, the sum of the weights, the largest learning rate, and the iterate z."""

    count: jax.Array
    b1: jax.Array
    weight_sum: jax.Array
    max_lr: jax.Array
    z: Updates

    counts_from = {"count": 0}

    def eval_params(self, params: Params) -> Params:
        return eval_from(lambda y, z: average_behind(y, z, self.b1), params, self.z)


class ScheduleFreeState(NamedTuple):
    """Optax's layout, with the state of the base optimizer; `step_count` is the number of the next step, from 1."""

    b1: jax.Array
    weight_sum: jax.Array
    step_count: jax.Array
    max_lr: jax.Array
    base_optimizer_state: OptState
    z: Updates

    counts_from = {"step_count": 1}

    def eval_params(self, params: Params) -> Params:
        return eval_from(lambda y, z: average_behind(y, z, self.b1), params, self.z)


@transformation
def schedule_free_averaging(
    learning_rate: ScalarOrSchedule,
    b1: Interpolation = 0.9,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType = None,
    *,
    weight_step_power: NonNegative = 0.0,
) -> GradientTransformationExtraArgs:
    """`schedule_free` as the last stage of a chain: it takes the updates of z and returns those of y.

    Args:
      learning_rate: the learning rate of the stages before it; its largest value so far is `max_lr`.
      b1: the weight of x in y, in (0, 1]. If it is a schedule, y moves as soon as it changes.
      weight_lr_power: the power of `max_lr` in the weight of an iterate; 0 for a weight without the learning rate.
      state_dtype: the dtype in which z is stored; None for at least float32.
      weight_step_power: the power of t in the weight of an iterate; 0 for a weight that does not grow with t.

    See also `schedule_free`, which defines x, y and z.
    """

    def memory():
        return {"b1": b1, "weight_sum": 0.0, "max_lr": 0.0}

    def shared(t, total, memory):
        max_lr = jnp.maximum(memory["max_lr"], learning_rate)  # type: ignore[arg-type]  # a number in here
        weight = t**weight_step_power * max_lr**weight_lr_power
        weight_sum = memory["weight_sum"] + weight
        # The sum is 0 while the learning rate was always zero; z has not moved then and equals x.
        common = safe_divide(weight, weight_sum), memory["b1"]
        return common, {"b1": b1, "weight_sum": weight_sum, "max_lr": max_lr}

    def update(u, z, p, t, common):
        weight, old_b1 = common
        return averaged_step(u, p, begun(z, p), weight, old_b1, b1)

    return per_parameter(
        lambda p: copy_of(p, state_dtype),
        update,
        ScheduleFreeAveragingState,
        shared=shared,
        memory=memory,
        needs_params=True,
        idle=lambda z, t, memory: set_aside(z, t == 1),
    )


@transformation
def schedule_free(
    base_optimizer: Transformation,
    learning_rate: ScalarOrSchedule,
    b1: Interpolation = 0.9,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DType = None,
    *,
    weight_step_power: NonNegative = 0.0,
) -> GradientTransformationExtraArgs:
    """Averages the iterates z of an optimizer and takes gradients at a point y between z and the average x:

    ```
    z = z + base_optimizer's update at y
    x = (1 - c) x + c z       c = w_t / Σ w       w_t = t^weight_step_power max_lr^weight_lr_power
    y = b1 x + (1 - b1) z
    ```

    The parameters that the caller holds are y; validate, save and deploy x: `eval_params(state, params)`.

    Args:
      base_optimizer: an optimizer without momentum, which b1 replaces. It sees y as the parameters.
      learning_rate: that of the base optimizer; its largest value so far is `max_lr`.
      b1: the weight of x in y, in (0, 1]. If it is a schedule, y moves as soon as it changes.
      weight_lr_power: the power of `max_lr` in the weight w_t; 0 for a weight without the learning rate.
      state_dtype: the dtype in which z is stored; None for at least float32.
      weight_step_power: the power of t in the weight w_t; 0 for a weight that does not grow with t.

    Reference: Defazio et al. 2024, arXiv:2405.15682.
    """
    averaging = schedule_free_averaging(
        learning_rate, b1, weight_lr_power, state_dtype, weight_step_power=weight_step_power
    )
    return repack_state(chain(base_optimizer, averaging), _pack, _unpack)


def _pack(state: Any) -> ScheduleFreeState:
    base, own = state
    return ScheduleFreeState(own.b1, own.weight_sum, safe_increment(own.count), own.max_lr, base, own.z)


def _unpack(state: Any) -> tuple:
    check_state("schedule_free", state, ScheduleFreeState)
    own = ScheduleFreeAveragingState(state.step_count - 1, state.b1, state.weight_sum, state.max_lr, state.z)
    return state.base_optimizer_state, own
