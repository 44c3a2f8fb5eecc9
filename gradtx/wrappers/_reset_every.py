# SPDX-License-Identifier: Apache-2.0
"""Resetting the state of a transformation at regular intervals."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._counts import in_place_of, restart, safe_increment
from gradtx.core._factory import transformation
from gradtx.core._ranges import PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates


class ResetEveryState(NamedTuple):
    """The number of updates made, and the state of the inner transformation."""

    count: jax.Array
    inner_state: OptState

    counts_from = {"count": 0}


@transformation
def reset_every(inner: Any, steps: PositiveInt) -> GradientTransformationExtraArgs:
    """Resets the state of `inner` after every `steps` updates, as if it were initialized: the momentum reset of SPAM.

    Moments, averages and bias corrections start anew from the current parameters. Schedules do not start anew: stages
    of gradtx continue with the step count that they had, as after `restart(state, at=count)`.

    Args:
      inner: any transformation. A stage that must keep its state, such as a clipping threshold, belongs before this one
        in a chain.
      steps: the number of updates between two resets; 500 in SPAM, 1000 in Stable-SPAM.

    References: Huang et al. 2025, arXiv:2501.06842 and arXiv:2502.17055.
    """
    tx = as_inner("reset_every: inner", inner)

    def init(params: Params) -> ResetEveryState:
        return ResetEveryState(jnp.zeros([], jnp.int32), tx.init(params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("reset_every", state, ResetEveryState)
        if params is None:
            raise ValueError("reset_every: update needs the parameters: call update(updates, state, params)")
        count = jnp.asarray(state.count)
        due = (count > 0) & (count % steps == 0)

        def fresh() -> OptState:
            return in_place_of(state.inner_state, restart(tx.init(params), at=count))

        inner_state = branch(due, fresh, lambda: state.inner_state)
        updates, inner_state = tx.update(updates, inner_state, params, **extra)
        return updates, ResetEveryState(safe_increment(count), inner_state)

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"inner_state": (inner, state.inner_state)}
    )
