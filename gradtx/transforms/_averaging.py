# SPDX-License-Identifier: Apache-2.0
"""Averages of the parameters: stages that pass updates unchanged and provide what `eval_params` returns.

Such a stage receives the parameters from before the update and averages p + u, where u is the update that reaches it.
So it must be the last stage of its chain. A parameter that never had a gradient has no average: it is its own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._evaluation import begun, eval_from, set_aside
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, Updates
from gradtx.numerics._averages import copy_of


class ParamsEmaState(NamedTuple):
    """The number of updates made, the total weight of the parameters averaged so far, and their average."""

    count: jax.Array
    weight: jax.Array
    ema: Updates

    def eval_params(self, params: Params) -> Params:
        return eval_from(lambda p, ema: ema, params, self.ema)


class LawaState(NamedTuple):
    """The updates since the last snapshot, the number of snapshots taken, and the last snapshots, stacked."""

    since: jax.Array
    taken: jax.Array
    snapshots: Updates

    def eval_params(self, params: Params) -> Params:
        def mean(p: jax.Array, snapshots: jax.Array) -> jax.Array:
            window, dtype = snapshots.shape[0], compute_dtype(p, snapshots)
            p, snapshots = widen((p, snapshots), dtype)
            size = jnp.minimum(self.taken, window)
            filled = jnp.reshape(jnp.arange(window, dtype=jnp.int32) < size, (window,) + (1,) * p.ndim)
            with promotion(p):
                average = jnp.sum(jnp.where(filled, snapshots, 0), axis=0) / jnp.maximum(size, 1).astype(dtype)
            return jnp.where(self.taken > 0, average, p)

        return eval_from(mean, params, self.snapshots)


@transformation
def params_ema(
    decay: Decay = 0.999, *, warmup: bool = False, debias: bool = False, ema_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """A moving average of the parameters, for evaluation: ema = decay ema + (1 - decay) p, with p after the update.

    Put it last in a chain. Updates pass unchanged, and `eval_params(state, params)` returns the average.

    Args:
      warmup: whether the decay at step t is min(decay, (1 + t) / (10 + t)).
      debias: True to average only parameters after an update, as if the average started at zero and were divided by
        its total weight. If False it starts at the initial parameters, which keep the weight decay^t.
      ema_dtype: the dtype in which the average is stored; None for at least float32.

    Reference: Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def shared(t, total, memory):
        now = jnp.minimum(decay, (1 + t) / (10 + t)) if warmup else decay
        weight = now * memory["weight"] + (1 - now)
        # The stored average is already divided by its weight, so the first one is the parameter itself.
        return (1 - now) / weight, {"weight": weight}

    def update(u, ema, p, t, step):
        ema = begun(ema, p)
        return u, ema + step * (p + u - ema)

    return per_parameter(
        lambda p: copy_of(p, ema_dtype),
        update,
        ParamsEmaState,
        shared=shared,
        memory=lambda: {"weight": 0.0 if debias else 1.0},
        needs_params=True,
        idle=lambda ema, t, memory: set_aside(ema, t == 1),
    )


@transformation
def lawa(
    window: PositiveInt = 5, every: PositiveInt = 1, *, snapshot_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """Latest weight averaging: the mean of the last `window` snapshots of the parameters, taken every `every` updates.

    Put it last in a chain. Updates pass unchanged, and `eval_params(state, params)` returns the mean of the snapshots
    taken so far, at most `window`; before the first one it returns the parameters themselves.

    Args:
      window: how many snapshots are kept, each as large as the parameters.
      every: the number of updates from one snapshot to the next, such as those of an epoch.
      snapshot_dtype: the dtype in which snapshots are stored; None for at least float32.

    Reference: Kaddour 2022, arXiv:2209.14981.
    """

    def init(p):
        return jnp.stack([copy_of(p, snapshot_dtype)] * window)

    def shared(t, total, memory):
        since = memory["since"] + 1
        due = since == every
        taken = memory["taken"] + due.astype(jnp.int32)
        return (due, memory["taken"] % window), {"since": jnp.where(due, 0, since), "taken": taken}

    def update(u, snapshots, p, t, common):
        due, place = common
        snapshots = begun(snapshots, p)
        row = jax.lax.dynamic_index_in_dim(snapshots, place, keepdims=False)
        row = jnp.where(due, p + u, row)
        return u, jax.lax.dynamic_update_index_in_dim(snapshots, row, place, 0)

    def idle(snapshots, t, memory):
        return set_aside(snapshots, (memory["taken"] == 0) & (memory["since"] == 0))

    return per_parameter(
        init,
        update,
        LawaState,
        shared=shared,
        memory=lambda: {"since": jnp.zeros([], jnp.int32), "taken": jnp.zeros([], jnp.int32)},
        needs_params=True,
        idle=idle,
    )
