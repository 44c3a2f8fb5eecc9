# SPDX-License-Identifier: Apache-2.0
"""The parameters with all bits that a rounding stage keeps: to read them, and to show them to an optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._factory import transformation
from gradtx.core._kinds import StateTree
from gradtx.core._roles import closed, opened
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import check_state, is_leaf
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._rounding import is_low


class WithMasterParamsState(NamedTuple):
    """The state of the inner transformation and that of the rounding stage."""

    inner_state: OptState
    rounding_state: OptState


@checked
def master_params(state: StateTree, params: Params) -> Params:
    """The parameters with all bits that the rounding stage in a state keeps, in float32; the others unchanged.

    For checkpoints, for evaluation in float32, and to go on without the stage, which is found inside of chains, masks
    and wrappers. The state class of a rounding stage has a method `master_params(self, params)`.

    Raises:
      ValueError: if the state is one of other parameters.
    """
    method = getattr(type(state), "master_params", None)
    if method is not None:
        return method(state, params)
    children: Any = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    for child in children:
        params = master_params(child, params)
    return params


@transformation
def with_master_params(inner: Any, rounding: Any) -> GradientTransformationExtraArgs:
    """Shows `inner` the parameters in float32, with all bits that `rounding` keeps, and rounds its updates.

    `chain(inner, rounding)` shows `inner` the rounded parameters, which makes a difference only if it computes with
    them: weight decay, trust ratios, averages. `with_master_params(adamw(1e-3), keep_master())` is AdamW on float32
    parameters bit for bit, of which the bfloat16 parameters are rounded copies; so it is with `error_bits(16)`, in half
    the memory.

    Args:
      inner: the transformation, a whole optimizer.
      rounding: a rounding stage, such as `keep_master()` or `error_bits(16)`.
    """
    tx = as_inner("with_master_params: inner", inner)
    stage = as_inner("with_master_params: rounding", rounding)

    def init(params: Params) -> WithMasterParamsState:
        rounding_state = stage.init(params)
        return WithMasterParamsState(tx.init(_seen(rounding_state, params)), rounding_state)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("with_master_params", state, WithMasterParamsState)
        if params is None:
            raise ValueError("with_master_params: update needs the parameters: call update(updates, state, params)")
        seen = _seen(state.rounding_state, params)
        new, inner_state = tx.update(updates, state.inner_state, seen, **extra)
        new, rounding_state = stage.update(new, state.rounding_state, params, **extra)
        return new, WithMasterParamsState(inner_state, rounding_state)

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        return {"inner_state": (inner, state.inner_state), "rounding_state": (rounding, state.rounding_state)}

    return GradientTransformationExtraArgs(init, update, parts=parts)


def _seen(state: OptState, params: Params) -> Params:
    """The parameters in at least float32, in their boxes."""

    def wide(p: Any) -> Any:
        if p is None or not is_low(jnp.result_type(opened(p))):
            return p
        return closed(p, jnp.asarray(opened(p)).astype(jnp.float32))

    return jax.tree.map(wide, master_params(state, params), is_leaf=is_leaf)
