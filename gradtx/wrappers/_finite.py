# SPDX-License-Identifier: Apache-2.0
"""Skipping steps with non-finite gradients, up to a number of steps in a row."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._factory import transformation
from gradtx.core._kinds import AxisNames
from gradtx.core._ranges import NonNegativeInt
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates
from gradtx.wrappers._skipping import all_finite, run_if


class ApplyIfFiniteState(NamedTuple):
    """The non-finite steps in a row, whether the last step was finite, all non-finite steps, and the inner state."""

    notfinite_count: jax.Array
    last_finite: jax.Array
    total_notfinite: jax.Array
    inner_state: OptState

    def metrics(self) -> dict[str, jax.Array]:
        return {n: getattr(self, n) for n in ("notfinite_count", "last_finite", "total_notfinite")}

    def step_skipped(self, tx: Any) -> jax.Array:
        if tx is None:
            return ~self.last_finite
        return ~self.last_finite & (self.notfinite_count <= tx.arguments["max_consecutive_errors"])


@transformation
def apply_if_finite(
    inner: Transformation, max_consecutive_errors: NonNegativeInt, *, axis_name: AxisNames | None = None
) -> GradientTransformationExtraArgs:
    """Skips steps with a non-finite gradient: the updates are 0, `inner` does not run and its state does not change.

    Args:
      max_consecutive_errors: how many steps in a row are skipped. After that, gradients are passed to `inner` as they
        are until one is finite again.
      axis_name: an axis of `jax.shard_map` along which the gradients are split: all its devices skip the same steps.
        None if they are not split.

    See also `guard`, which never takes a non-finite step and can skip steps for other reasons too.
    """
    tx = as_inner("apply_if_finite: inner", inner)

    def init(params: Params) -> ApplyIfFiniteState:
        start = jnp.zeros([], jnp.int32), jnp.ones([], bool), jnp.zeros([], jnp.int32)
        return ApplyIfFiniteState(*start, tx.init(params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("apply_if_finite", state, ApplyIfFiniteState)
        if axis_name is None:
            check_said("apply_if_finite", params)
        finite = all_finite(updates, axis_name)
        in_a_row = jnp.where(finite, 0, safe_increment(state.notfinite_count))
        total = jnp.where(finite, state.total_notfinite, safe_increment(state.total_notfinite))
        take = finite | (in_a_row > max_consecutive_errors)
        new, inner_state = run_if(take, "apply_if_finite", tx, updates, state.inner_state, params, extra)
        return new, ApplyIfFiniteState(in_a_row, finite, total, inner_state)

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"inner_state": (inner, state.inner_state)}
    )
