# SPDX-License-Identifier: Apache-2.0
"""Running a transformation at some of the steps only."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._factory import transformation
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates
from gradtx.wrappers._skipping import run_if


class ConditionallyTransformState(NamedTuple):
    """The inner state and the number of updates made."""

    inner_state: OptState
    step: jax.Array

    counts_from = {"step": 0}


class ConditionallyMaskState(NamedTuple):
    """The number of updates made and the inner state."""

    step: jax.Array
    inner_state: OptState

    counts_from = {"step": 0}


@transformation
def conditionally_transform(
    inner: Transformation,
    should_transform_fn: Annotated[Callable[..., Any], "of the step"],
    forward_extra_args: bool = False,
) -> GradientTransformationExtraArgs:
    """Runs `inner` at the steps for which a function returns True; at all others updates pass unchanged.

    Args:
      should_transform_fn: `f(step) -> bool`, where `step` is the number of updates made before, 0 at the first.
      forward_extra_args: whether the function also gets the extra arguments of `update`: `f(step, **extra) -> bool`.

    See also `conditionally_mask`, whose updates are 0 at the other steps.
    """
    return _at_some_steps(
        "conditionally_transform", inner, should_transform_fn, forward_extra_args, ConditionallyTransformState, _as_is
    )


@transformation
def conditionally_mask(
    inner: Transformation,
    should_transform_fn: Annotated[Callable[..., Any], "of the step"],
    forward_extra_args: bool = False,
) -> GradientTransformationExtraArgs:
    """Runs `inner` at the steps for which a function returns True; at all others the updates are 0.

    Args:
      should_transform_fn: `f(step) -> bool`, where `step` is the number of updates made before, 0 at the first.
      forward_extra_args: whether the function also gets the extra arguments of `update`: `f(step, **extra) -> bool`.

    See also `conditionally_transform`, which passes updates unchanged at the other steps.
    """
    return _at_some_steps(
        "conditionally_mask", inner, should_transform_fn, forward_extra_args, ConditionallyMaskState, None
    )


def _as_is(g: jax.Array, like: Any) -> jax.Array:
    return jnp.asarray(g).astype(like.dtype)


def _at_some_steps(
    name: str, inner: Any, should_run: Callable, with_extra: bool, state_type: type, otherwise: Callable | None
) -> GradientTransformationExtraArgs:
    tx = as_inner(f"{name}: inner", inner)

    def init(params: Params) -> OptState:
        return state_type(inner_state=tx.init(params), step=jnp.zeros([], jnp.int32))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state(name, state, state_type)
        take = should_run(state.step, **extra) if with_extra else should_run(state.step)
        if jnp.ndim(take) != 0:
            raise ValueError(f"{name}: should_transform_fn must return True or False, got shape {jnp.shape(take)}")
        new, inner_state = run_if(take, name, tx, updates, state.inner_state, params, extra, otherwise)
        return new, state_type(inner_state=inner_state, step=safe_increment(state.step))

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"inner_state": (inner, state.inner_state)}
    )
