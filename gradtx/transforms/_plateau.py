# SPDX-License-Identifier: Apache-2.0
"""Stages that react to a metric that no longer improves: by reducing the learning rate, or by asking to stop."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._evaluation import eval_from, set_aside
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Fraction, NonNegative, NonNegativeInt, PositiveInt, Range
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, Updates
from gradtx.numerics._averages import copy_of
from gradtx.numerics._improvement import Mode, watch, worst

Factor = Annotated[Any, Range(low=0.0, high=1.0, low_open=True, high_open=True, example=0.5)]


class ReduceLROnPlateauState(NamedTuple):
    """The factor of the updates, the best metric, the number of metrics since, those that are left of the cooldown, the
    number of values in the next metric, and their mean.
    """

    scale: jax.Array
    best_value: jax.Array
    plateau_count: jax.Array
    cooldown_count: jax.Array
    count: jax.Array
    avg_value: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        return {"scale": self.scale, "best_value": self.best_value, "plateau_count": self.plateau_count}


class EarlyStoppingState(NamedTuple):
    """Whether to stop, the best metric, the number of metrics since, the number of values in the next metric, their
    mean, and the parameters at the best metric (if kept).
    """

    should_stop: jax.Array
    best_value: jax.Array
    plateau_count: jax.Array
    count: jax.Array
    avg_value: jax.Array
    best_params: Updates

    def metrics(self) -> dict[str, jax.Array]:
        return {"should_stop": self.should_stop, "best_value": self.best_value, "plateau_count": self.plateau_count}

    def eval_params(self, params: Params) -> Params:
        return eval_from(lambda p, best: best, params, self.best_params)


@transformation
def reduce_on_plateau(
    factor: Factor = 0.1,
    patience: PositiveInt = 10,
    rtol: Fraction = 1e-4,
    atol: NonNegative = 0.0,
    cooldown: NonNegativeInt = 0,
    accumulation_size: PositiveInt = 1,
    min_scale: Fraction = 0.0,
    *,
    mode: Mode = "min",
) -> GradientTransformationExtraArgs:
    """u = scale * g; scale starts at 1 and becomes max(factor scale, min_scale) when a metric stops improving.

    `update` needs the metric: `update(g, state, params, value=loss)`. It improves if it is better than the best so far
    by more than rtol |best| + atol; a non-finite value never improves. Put it after the optimizer.

    Args:
      factor: what scale is multiplied by at a reduction, in (0, 1).
      patience: the number of metrics in a row without improvement after which scale is reduced; PyTorch waits for one
        more.
      rtol, atol: the smallest improvement that counts, relative to |best| and absolute.
      cooldown: the number of metrics after a reduction that do not count as lacking improvement.
      accumulation_size: the number of values whose mean is one metric, such as the number of steps in an epoch;
        `patience` and `cooldown` count metrics, not updates.
      min_scale: the smallest scale.
      mode: "min" if small metrics are good, "max" if large ones are.

    Raises:
      ValueError: if `value` is missing or not a scalar.
    """

    def memory():
        fields = _nothing_seen(mode)
        return {"scale": 1.0, "cooldown_count": jnp.zeros([], jnp.int32), **fields}

    def shared(t, total, memory, value):
        _check_scalar("reduce_on_plateau", value)
        due, _, seen = watch(memory, value, accumulation_size, rtol, atol, mode)
        scale, rest = memory["scale"], memory["cooldown_count"]
        cooling = due & (rest > 0)
        waited = jnp.where(cooling, 0, seen["plateau_count"])
        reduce = due & (waited >= patience)
        scale = jnp.where(reduce, jnp.maximum(factor * scale, min_scale), scale)
        seen["plateau_count"] = jnp.where(reduce, 0, waited)
        rest = jnp.where(reduce, cooldown, jnp.where(cooling, rest - 1, rest))
        return scale, {"scale": scale, "cooldown_count": rest, **seen}

    def update(g, slots, p, t, scale):
        return scale * g, slots

    # The field `count` counts values, not steps.
    return per_parameter(
        None, update, ReduceLROnPlateauState, shared=shared, memory=memory, needs=("value",), counter="steps"
    )


@transformation
def early_stopping(
    patience: PositiveInt = 10,
    rtol: Fraction = 1e-4,
    atol: NonNegative = 0.0,
    accumulation_size: PositiveInt = 1,
    *,
    mode: Mode = "min",
    keep_best: bool = False,
) -> GradientTransformationExtraArgs:
    """Passes updates unchanged and tells when to stop: after `patience` metrics in a row that did not improve.

    `update` needs the metric, `value=...`, and compares it as `reduce_on_plateau` does. `metrics(state)` publishes
    "should_stop"; once True it stays True, so a loop need not read it at every step.

    Args:
      patience: the number of metrics in a row without improvement after which to stop.
      rtol, atol: the smallest improvement that counts, relative to |best| and absolute.
      accumulation_size: the number of values whose mean is one metric.
      mode: "min" if small metrics are good, "max" if large ones are.
      keep_best: whether to keep a copy of the parameters with the best metric, which `eval_params` then returns;
        `value` must be the metric at the parameters that `update` is given with it.

    Raises:
      ValueError: if `value` is missing or not a scalar.

    Reference: Prechelt 1998, "Early stopping - but when?"; Goodfellow et al. 2016, "Deep Learning", algorithm 7.1.
    """

    def memory():
        return {"should_stop": jnp.zeros([], jnp.bool_), **_nothing_seen(mode)}

    def shared(t, total, memory, value):
        _check_scalar("early_stopping", value)
        _, better, seen = watch(memory, value, accumulation_size, rtol, atol, mode)
        return better, {"should_stop": memory["should_stop"] | (seen["plateau_count"] >= patience), **seen}

    def update(g, best, p, t, better):
        return g, jnp.where(better, p, best) if keep_best else best

    return per_parameter(
        lambda p: copy_of(p) if keep_best else (),
        update,
        EarlyStoppingState,
        shared=shared,
        memory=memory,
        needs=("value",),
        needs_params=keep_best,
        counter="steps",
        idle=lambda best, t, memory: set_aside(best, memory["best_value"] == worst(mode)),
    )


def _nothing_seen(mode: Mode) -> dict[str, Any]:
    zero = jnp.zeros([], jnp.int32)
    return {"best_value": worst(mode), "plateau_count": zero, "count": zero, "avg_value": 0.0}


def _check_scalar(where: str, value: jax.Array) -> None:
    if jnp.ndim(value) != 0:
        raise ValueError(f"{where}: value must be a scalar, got shape {jnp.shape(value)}")
