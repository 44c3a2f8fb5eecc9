# SPDX-License-Identifier: Apache-2.0
"""Dynamic loss scaling, for gradients in float16."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation
from gradtx.core._kinds import AxisNames
from gradtx.core._ranges import Positive, PositiveInt, Range, is_number
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.wrappers._skipping import all_finite, run_if

Growth = Annotated[Any, Range(low=1.0, example=2.0)]


class DynamicLossScaleState(NamedTuple):
    """The factor of the loss, the steps taken since it last changed (-1 right after a skipped step), the steps skipped,
    the inner state.
    """

    scale: jax.Array
    good_steps: jax.Array
    skipped: jax.Array
    inner_state: OptState

    def metrics(self) -> dict[str, jax.Array]:
        return {"loss_scale": self.scale, "skipped": self.skipped}

    def step_skipped(self, tx: Any) -> jax.Array:
        return self.good_steps < 0


@transformation
def dynamic_loss_scale(
    inner: Transformation,
    initial: Positive = 2.0**15,
    growth_interval: PositiveInt = 2000,
    factor: Growth = 2.0,
    minimum: Positive = 1.0,
    *,
    axis_name: AxisNames | None = None,
) -> GradientTransformationExtraArgs:
    """Takes the gradients g of scale * loss, divides them by the scale, and adapts the scale:

    ```
    u     = inner(g / scale)                (in float32)
    scale = max(scale / factor, minimum)    if a gradient is not finite; then u = 0, and inner does not run
    scale = scale factor                    after growth_interval finite steps in a row
    ```

    In float16, gradients below 6e-8 are 0; those of a scaled loss are not. The caller has to scale the loss:
    `jax.grad(lambda params: loss(params) * loss_scale(state))`. If `initial` and `factor` are powers of 2, the scaling
    does not round.

    Args:
      initial: the scale at the start, at least `minimum`.
      growth_interval: the number of finite steps in a row after which the scale grows.
      factor: by how much the scale grows and shrinks; 1 for a scale that stays.
      minimum: the smallest scale.
      axis_name: an axis of `jax.shard_map` along which the gradients are split: all its devices skip the same steps.
        None if they are not split.

    Reference: Micikevicius et al. 2017, arXiv:1710.03740, section 3.2.
    """
    tx = as_inner("dynamic_loss_scale: inner", inner)
    if is_number(initial) and is_number(minimum) and initial < minimum:
        raise ValueError(f"dynamic_loss_scale: initial must be at least minimum, which is {minimum}, got {initial}")

    def init(params: Params) -> DynamicLossScaleState:
        scale = jnp.array(initial, jnp.result_type(float))
        return DynamicLossScaleState(scale, jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), tx.init(params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("dynamic_loss_scale", state, DynamicLossScaleState)
        if axis_name is None:
            check_said("dynamic_loss_scale", params)
        scale = jnp.asarray(state.scale)

        def unscaled(g: Any) -> Any:
            if is_hole(g):
                return None
            g = widen(g, dtype := compute_dtype(jnp.asarray(g)))
            with promotion(g):
                return g / scale.astype(dtype)

        gradients = jax.tree.map(unscaled, updates, is_leaf=is_none)
        finite = all_finite(gradients, axis_name)
        new, inner_state = run_if(finite, "dynamic_loss_scale", tx, gradients, state.inner_state, params, extra)

        good = jnp.where(finite, safe_increment(jnp.maximum(state.good_steps, 0)), -1)
        larger = scale * jnp.asarray(factor, scale.dtype)
        grow = (good >= growth_interval) & jnp.isfinite(larger)
        smaller = jnp.maximum(scale / jnp.asarray(factor, scale.dtype), jnp.asarray(minimum, scale.dtype))
        return new, DynamicLossScaleState(
            scale=jnp.where(finite, jnp.where(grow, larger, scale), smaller),
            good_steps=jnp.where(good >= growth_interval, 0, good),
            skipped=jnp.where(finite, state.skipped, safe_increment(state.skipped)),
            inner_state=inner_state,
        )

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"inner_state": (inner, state.inner_state)}
    )


def loss_scale(state: OptState) -> jax.Array:
    """The factor to multiply the loss with now: the scale in the state of a `dynamic_loss_scale`.

    Args:
      state: the state of any transformation that has one `dynamic_loss_scale` in it.

    Raises:
      ValueError: if there is none, or more than one.
    """
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, DynamicLossScaleState))
    found = [x for x in nodes if isinstance(x, DynamicLossScaleState)]
    if len(found) != 1:
        raise ValueError(f"loss_scale: the state must have one dynamic_loss_scale in it, found {len(found)}")
    return found[0].scale
