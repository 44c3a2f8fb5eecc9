# SPDX-License-Identifier: Apache-2.0
"""Lookahead: an optimizer moves fast parameters, and slow ones follow them part of the way."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._apply import apply_updates
from gradtx.core._borders import narrowed
from gradtx.core._branching import branch
from gradtx.core._counts import in_place_of
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._evaluation import begun, eval_from, set_aside
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import DType, NonNegative, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs, Inner, as_inner
from gradtx.core._trees import check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._averages import copy_of


class LookaheadParams(NamedTuple):
    """The fast and the slow parameters, for callers that keep both themselves and not in the state."""

    fast: Params
    slow: Params

    @classmethod
    def init_synced(cls, params: Params) -> "LookaheadParams":
        """The pair where both are `params`; the slow ones are copies."""
        return cls(fast=params, slow=jax.tree.map(jnp.array, params))


class LookaheadState(NamedTuple):
    """The state of the fast optimizer, the updates since the last synchronization, and the slow parameters.

    `slow` is None if the caller keeps the slow parameters, in `LookaheadParams`.
    """

    fast_state: OptState
    steps_since_sync: jax.Array
    slow: Params | None = None

    def eval_params(self, params: Params) -> Params:
        if self.slow is None:
            return params.slow if isinstance(params, LookaheadParams) else params
        return eval_from(lambda p, slow: slow, params, self.slow)


class _Slow(NamedTuple):
    steps: jax.Array
    slow: Updates


def _weights(t, total, memory, *, sync, step_size):
    return (sync, step_size), memory


def _step(u, slow, p, t, common):
    sync, step_size = common
    slow = begun(slow, p)
    # Computed from the distance, which is small, so that no digits of the parameters are lost.
    distance = p - slow
    back = step_size * u - (1 - step_size) * distance
    return jnp.where(sync, back, u), jnp.where(sync, slow + step_size * (distance + u), slow)


def _idle(slow, t, memory):
    # There is no count of all updates; but after each synchronization, slow and fast parameters are equal, too.
    return set_aside(slow, memory["steps"] == 0)


# Made once, so that it is compiled once; the numbers that change are its extra arguments.
_FOLLOW = Inner(
    per_parameter(
        None,
        _step,
        _Slow,
        shared=_weights,
        memory=lambda: {"steps": 0},
        needs=("sync", "step_size"),
        needs_params=True,
        idle=_idle,
    )
)


@transformation
def lookahead(
    fast_optimizer: Any,
    sync_period: PositiveInt,
    slow_step_size: NonNegative,
    reset_state: bool = False,
    *,
    slow_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """An optimizer moves the parameters; after every `sync_period` updates, slow parameters follow them:

    ```
    p = p + fast_optimizer's update
    slow = slow + slow_step_size (p - slow); p = slow      (every sync_period updates)
    ```

    Validate, save and deploy the slow parameters: `eval_params(state, params)`. They are kept in the state; or, as in
    Optax, by the caller: if `params` is a `LookaheadParams(fast, slow)`, gradients are those of `fast` and updates are
    a `LookaheadParams` too.

    Args:
      fast_optimizer: the optimizer that moves the parameters.
      sync_period: the number of updates from one synchronization to the next; 5 or 10 in the paper.
      slow_step_size: the fraction of the way that the slow parameters follow; 0.5 or 0.8 in the paper, 0 to stay.
      reset_state: whether the optimizer starts anew after each synchronization.
      slow_dtype: the dtype in which the state stores the slow parameters; None for at least float32.

    Reference: Zhang et al. 2019, arXiv:1907.08610.
    """
    tx = as_inner("lookahead: fast_optimizer", fast_optimizer)

    def init(params: Params) -> LookaheadState:
        steps = jnp.zeros([], jnp.int32)
        if isinstance(params, LookaheadParams):
            return LookaheadState(tx.init(params.fast), steps)
        slow = jax.tree.map(lambda p: copy_of(widen(p), slow_dtype), params)
        return LookaheadState(tx.init(params), steps, slow)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Any, LookaheadState]:
        check_state("lookahead", state, LookaheadState)
        if params is None:
            raise ValueError("lookahead: update needs the parameters: call update(updates, state, params)")
        paired = isinstance(params, LookaheadParams)
        if paired != (state.slow is None):
            raise ValueError(
                "lookahead: init and update must be given the same kind of parameters, LookaheadParams or plain ones; "
                f"init had {'plain ones' if paired else 'LookaheadParams'}, update has {type(params).__name__}"
            )
        fast, slow = params if paired else (params, state.slow)

        gradients = updates
        updates, fast_state = tx.update(gradients, state.fast_state, fast, **extra)
        sync = state.steps_since_sync == sync_period - 1
        updates, followed = _FOLLOW.update(
            updates, _Slow(state.steps_since_sync, slow), fast, sync=sync, step_size=slow_step_size
        )
        if reset_state:
            moved = updates
            before = fast_state
            fast_state = branch(sync, lambda: in_place_of(before, tx.init(apply_updates(fast, moved))), lambda: before)
        steps = jnp.where(sync, 0, state.steps_since_sync + 1)
        if not paired:
            return updates, LookaheadState(fast_state, steps, followed.slow)
        moves = jax.tree.map(_difference, updates, followed.slow, slow, is_leaf=is_none)
        # Here, as `core/_borders.py` casts updates only if their structure is that of the gradients, which it is not.
        pair = (narrowed(new, gradients, old, fast_state) for new, old in ((updates, fast), (moves, slow)))
        return LookaheadParams(*pair), LookaheadState(fast_state, steps)

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"fast_state": (fast_optimizer, state.fast_state)}
    )


def _difference(u: Any, new: Any, old: Any) -> Any:
    """new - old in the dtype of the update `u`; `u` itself where it is None or float0."""
    if is_hole(u):
        return u
    new, old = widen((new, old), compute_dtype(u))
    return new - old
