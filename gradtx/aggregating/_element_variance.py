# SPDX-License-Identifier: Apache-2.0
"""The variance of per-element gradients: measured at each update, and averaged alongside an optimizer."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.aggregating._aggregate import aggregate, element_axes, elements
from gradtx.core._combine import chain, identity
from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, PositiveInt, is_number
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, check_transformation
from gradtx.core._trees import align, check_shapes, check_state, is_hole, is_none
from gradtx.core._types import EmptyState, OptState, Params, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._safe import abs_sq
from gradtx.tree._search import get


class PerElementMeanAndSumSqDiffGradsState(NamedTuple):
    """The calls made in this round, whether the last call ended a round, and for the elements of this round the mean,
    the sum of squared differences from it, and the number."""

    micro_step: jax.Array
    ready: jax.Array
    mean_grads: Updates
    sum_sq_diff_grads: Updates
    sample_size: jax.Array


@transformation
def get_per_element_mean_and_sum_sq_diff_grads(
    per_elt_axis: int | Sequence[int] = 0, accumulation_steps: PositiveInt = 1
) -> GradientTransformationExtraArgs:
    """The mean m of the gradients of n elements and s = Σ |g_i - m|², over k micro-batches of any sizes:

    ```
    d = m_b - m_a      n = n_a + n_b      m = m_a + d n_b / n      s = s_a + s_b + |d|² n_a n_b / n
    ```

    Here a are the elements so far and b those of the new micro-batch. This is an aggregator with aux: `update` returns
    `((m, {"sum_sq_diff_grads": s, "sample_size": n}), state)` at every k-th call, zeros at all others. Everything is in
    at least float32.

    Args:
      per_elt_axis: the axis of the elements, or several axes.
      accumulation_steps: k, the number of calls in a round.

    Raises:
      ValueError: if a gradient has no such axis, or the numbers of elements differ.

    Reference: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm".
    """
    where = "get_per_element_mean_and_sum_sq_diff_grads"
    axes = element_axes(where, per_elt_axis)

    def measured(updates: Updates, params: Params) -> tuple:
        leaves, treedef, live, size = elements(where, updates, axes, params)
        means: list = [None] * len(leaves)
        sums = list(means)
        for i in live:
            means[i], sums[i] = _measured(leaves[i], axes)
        return means, sums, treedef, live, size

    def aux(sums: Updates, size: Any) -> dict[str, Any]:
        return {"sum_sq_diff_grads": sums, "sample_size": size}

    def at_once(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Any, OptState]:
        check_state(where, state, EmptyState, updates, params)
        means, sums, treedef, _, size = measured(updates, params)
        return (treedef.unflatten(means), aux(treedef.unflatten(sums), size)), state

    if accumulation_steps == 1:
        return GradientTransformationExtraArgs(lambda params: EmptyState(), at_once)

    def init(params: Params) -> PerElementMeanAndSumSqDiffGradsState:
        calls, ready, size = (jnp.zeros([], dtype) for dtype in (jnp.int32, bool, jnp.int32))
        return PerElementMeanAndSumSqDiffGradsState(calls, ready, *_zeros(params), size)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Any, OptState]:
        check_state(where, state, PerElementMeanAndSumSqDiffGradsState)
        means, sums, treedef, live, size = measured(updates, params)
        old = align(treedef, state.mean_grads, where, "the state's mean_grads", updates, "the gradients")
        old_sums = align(treedef, state.sum_sq_diff_grads, where, "the state's sums", updates, "the gradients")
        check_shapes(where, "mean gradient", updates, means, old)
        made = safe_increment(state.micro_step)
        ready = made >= accumulation_steps
        seen = state.sample_size + size
        kept, kept_sums = list(old), list(old_sums)
        for i in live:
            whole = _merged((old[i], old_sums[i], state.sample_size), (means[i], sums[i], size))
            (means[i], sums[i]), (kept[i], kept_sums[i]) = _dealt(ready, whole, (old[i], old_sums[i]))
        made, remembered = (jnp.where(ready, 0, n) for n in (made, seen))
        trees = treedef.unflatten(kept), treedef.unflatten(kept_sums)
        new_state = PerElementMeanAndSumSqDiffGradsState(made, ready, *trees, remembered)
        return (treedef.unflatten(means), aux(treedef.unflatten(sums), jnp.where(ready, seen, 0))), new_state

    return GradientTransformationExtraArgs(init, update)


class PerElementMeanAndVarianceEMAState(NamedTuple):
    """The number of updates made, the last decay, and the averages of means and variances, which start at 0."""

    count: jax.Array
    ema_decay: jax.Array
    mean_grads_ema: Updates
    variance_grads_ema: Updates


@transformation
def track_per_element_mean_and_variance_with_ema(ema_decay: Decay = 0.9) -> GradientTransformationExtraArgs:
    """Passes updates g unchanged, which are means over elements, and averages them and the variance of the elements:

    ```
    m = ema_decay m + (1 - ema_decay) g      v = ema_decay v + (1 - ema_decay) sum_sq_diff_grads / (sample_size - 1)
    ```

    `update` needs `sum_sq_diff_grads` and `sample_size`, the aux of `get_per_element_mean_and_sum_sq_diff_grads`; the
    averages without their bias are `get_unbiased_mean_and_variance_ema(state)`.

    Args:
      ema_decay: the decay of both averages.

    Raises:
      ValueError: if `sample_size` is 1: one element has no variance.
    """
    where = "track_per_element_mean_and_variance_with_ema"

    def decay() -> jax.Array:
        # An array also for a Python number, so that averages and their total weight use the same rounded decay.
        return jnp.array(ema_decay, jnp.result_type(float))

    def init(params: Params) -> PerElementMeanAndVarianceEMAState:
        return PerElementMeanAndVarianceEMAState(jnp.zeros([], jnp.int32), decay(), *_zeros(params))

    def update(
        updates: Updates,
        state: OptState,
        params: Params = None,
        *,
        sum_sq_diff_grads: Updates,
        sample_size: Any,
        **extra: Any,
    ) -> tuple[Updates, OptState]:
        check_state(where, state, PerElementMeanAndVarianceEMAState)
        if is_number(sample_size) and sample_size < 2:
            raise ValueError(f"{where}: sample_size must be at least 2 for a variance, got {sample_size}")
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        sums = align(treedef, sum_sq_diff_grads, where, "sum_sq_diff_grads", updates, "the gradients")
        means = align(treedef, state.mean_grads_ema, where, "the state's mean_grads_ema", updates, "the gradients")
        variances = align(treedef, state.variance_grads_ema, where, "the state's averages", updates, "the gradients")
        check_shapes(where, "gradient", updates, leaves, means)
        check_shapes(where, "sum of squares", updates, sums, means)
        now, divisor = decay(), jnp.maximum(sample_size - 1, 1)
        for i, g in enumerate(leaves):
            if not is_hole(g):
                means[i] = _averaged(means[i], g, now, None)
                variances[i] = _averaged(variances[i], sums[i], now, divisor)
        averages = treedef.unflatten(means), treedef.unflatten(variances)
        return updates, PerElementMeanAndVarianceEMAState(safe_increment(state.count), now, *averages)

    return GradientTransformationExtraArgs(init, update)


def get_unbiased_mean_and_variance_ema(state: OptState) -> tuple[Updates, Updates]:
    """The averages of `track_per_element_mean_and_variance_with_ema`, divided by 1 - ema_decay^t: means and variances.

    They are zeros before the first update.

    Args:
      state: the state of any transformation that has this stage in it once.

    Raises:
      ValueError: if the stage is not in it.
      KeyError: if the stage is in it several times.
    """
    found = get(state, PerElementMeanAndVarianceEMAState.__name__)
    if found is None:
        raise ValueError(
            "get_unbiased_mean_and_variance_ema: state must be that of add_mean_variance_to_opt or of another "
            "transformation with the stage track_per_element_mean_and_variance_with_ema"
        )
    # 1 - d is exact for d >= 1/2, so this has no cancellation, unlike 1 - d**t.
    weight = -jnp.expm1(found.count.astype(found.ema_decay.dtype) * jnp.log1p(found.ema_decay - 1))
    weight = jnp.where(found.count > 0, weight, jnp.ones_like(weight))
    with promotion(averages := (found.mean_grads_ema, found.variance_grads_ema)):
        return jax.tree.map(lambda x: x / weight.astype(jnp.real(x).dtype), averages)


@transformation
def add_mean_variance_to_opt(
    opt: Transformation,
    ema_decay: Decay = 0.9,
    per_elt_axis: int | Sequence[int] = 0,
    accumulation_steps: PositiveInt = 1,
) -> GradientTransformationExtraArgs:
    """Runs `opt` on the mean gradient of the elements of k micro-batches, and averages their mean and variance.

    It takes per-element gradients; `get_unbiased_mean_and_variance_ema(state)` returns the averages.

    Args:
      opt: the optimizer. It runs at every k-th call, on the mean in at least float32; other calls return zeros.
      ema_decay: the decay of both averages.
      per_elt_axis: the axis of the elements, or several axes.
      accumulation_steps: k, the number of calls in a round.
    """
    tx = check_transformation("add_mean_variance_to_opt: opt", opt)
    measure = get_per_element_mean_and_sum_sq_diff_grads(per_elt_axis, accumulation_steps)
    optimize = chain(track_per_element_mean_and_variance_with_ema(ema_decay), tx)
    return aggregate(identity(), measure, optimize, aggregator_has_aux=True)


def _zeros(params: Params) -> tuple[Updates, Updates]:
    """Zeros for the means, and real ones for the sums of squares."""
    params = jax.tree.map(jnp.asarray, params)
    means = jax.tree.map(lambda p: zeros_like(p, compute_dtype(p)), params)
    return means, jax.tree.map(lambda p: zeros_like(p, compute_dtype(p), real=True), params)


@functools.partial(jax.jit, static_argnames="axes")
def _measured(g: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    g = widen(g)
    mean = jnp.mean(g, axes, keepdims=True)
    return jnp.squeeze(mean, axes), jnp.sum(abs_sq(g - mean), axes)


@jax.jit
def _merged(a: tuple, b: tuple) -> tuple[jax.Array, jax.Array]:
    """The mean and the sum of squares over two sets of elements, from (mean, sum, number) of each; `a` may be empty."""
    numbers = a[2], a[2] + b[2], b[2]
    dtype = compute_dtype(a[:2], b[:2])
    mean_a, sum_a, mean_b, sum_b, n_a, n, n_b = widen((*a[:2], *b[:2], *numbers), dtype)
    with promotion(mean_a, mean_b):
        d = mean_b - mean_a
        mean, total = mean_a + d * (n_b / n), sum_a + sum_b + abs_sq(d) * (n_a * (n_b / n))
    return jnp.where(n_a == 0, mean_b, mean), jnp.where(n_a == 0, sum_b, total)


@jax.jit
def _dealt(ready: jax.Array, new: tuple, old: tuple) -> tuple[tuple, tuple]:
    """The values to return and those to keep: if ready, the new values and zeros, else zeros and the new values."""
    new = tuple(x.astype(o.dtype) for x, o in zip(new, old, strict=True))
    zeros = tuple(jnp.zeros_like(x) for x in new)
    choices = (new, zeros), (zeros, new)
    return tuple(tuple(jnp.where(ready, x, y) for x, y in zip(*pair, strict=True)) for pair in choices)  # type: ignore[return-value]  # two


@jax.jit
def _averaged(average: jax.Array, x: jax.Array, decay: jax.Array, divisor: Any) -> jax.Array:
    wide, x, decay = widen((average, x, decay))
    with promotion(wide):
        x = x if divisor is None else x / divisor.astype(x.dtype)
        return ema(wide, x, decay).astype(average.dtype)
