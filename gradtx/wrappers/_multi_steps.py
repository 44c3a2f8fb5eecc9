# SPDX-License-Identifier: Apache-2.0
"""Gradient accumulation: one update from the mean gradient of several micro-batches."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._calls import register_value
from gradtx.core._checked import checked
from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation_of
from gradtx.core._kinds import AxisNames, Tree
from gradtx.core._needs import needs
from gradtx.core._over_devices import sum_over
from gradtx.core._ranges import DType, LimitOrZero, Range
from gradtx.core._roles import by_names
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import align, check_shapes, check_state, is_hole, is_none
from gradtx.core._types import Numeric, OptState, Params, Updates
from gradtx.numerics._averages import copy_of, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide
from gradtx.wrappers._skipping import floating_leaves, run_if


@checked
def skip_not_finite(updates: Tree, gradient_step: Numeric, params: Params) -> tuple[jax.Array, dict]:
    """Whether any gradient has an infinity or a NaN, and how many there are: a `should_skip_update_fn` of `MultiSteps`.

    Args:
      gradient_step: the number of updates made; not used.
    """

    def counted(leaves: list) -> jax.Array:
        counts = [jnp.sum(~jnp.isfinite(g), dtype=jnp.int32) for g in leaves]
        return sum(counts, start=jnp.zeros([], jnp.int32))

    total = sum_over({names: counted(leaves) for names, leaves in by_names(floating_leaves(updates)).items()})
    return total > 0, {"should_skip": total > 0, "num_not_finite": total}


@checked
def skip_large_updates(
    updates: Tree, gradient_step: Numeric, params: Params, max_squared_norm: LimitOrZero
) -> tuple[jax.Array, dict]:
    """Whether ‖g‖² over all parameters exceeds a limit or is NaN: a `should_skip_update_fn` of `MultiSteps`.

    Bind the limit first: `functools.partial(skip_large_updates, max_squared_norm=100.0)`.

    Args:
      gradient_step: the number of updates made; not used.
      max_squared_norm: the largest ‖g‖² that is not skipped.
    """

    def squared(leaves: list) -> jax.Array:
        squares = [jnp.sum(abs_sq(widen(g))).astype(jnp.result_type(float)) for g in leaves]
        return sum(squares, start=jnp.zeros([], jnp.result_type(float)))

    total = sum_over({names: squared(leaves) for names, leaves in by_names(floating_leaves(updates)).items()})
    skip = ~(total <= jnp.asarray(max_squared_norm, total.dtype))  # NaN is not <= either
    return skip, {"should_skip": skip, "norm_squared": total}


def _skip_nothing(updates: Updates, gradient_step: Numeric, params: Params) -> tuple[jax.Array, tuple]:
    return jnp.zeros([], bool), ()


class MicroStepsState(NamedTuple):
    """The counts of `MultiSteps`: how many gradients are in the mean, how many were dropped since the start, the last
    report of `should_skip_update_fn`, and the means of the arguments named in `averaged`."""

    kept: jax.Array
    skipped: jax.Array
    report: Any
    averages: dict[str, jax.Array]


class WeightedMicroStepsState(NamedTuple):
    """As `MicroStepsState`, with the sum of the weights in the mean, for a `MultiSteps` with weights."""

    kept: jax.Array
    skipped: jax.Array
    report: Any
    averages: dict[str, jax.Array]
    total_weight: jax.Array


class MultiStepsState(NamedTuple):
    """Calls made in this round, updates made, the inner state, the mean gradient of the round, and its counts.

    Between two rounds `acc_grads` is still the mean of the last round.
    """

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: OptState
    acc_grads: Updates
    skip_state: MicroStepsState | WeightedMicroStepsState

    counts_from = {"gradient_step": 0}

    def metrics(self) -> dict[str, jax.Array]:
        return {
            "mini_step": self.mini_step,
            "gradient_step": self.gradient_step,
            "skipped": self.skip_state.skipped,
        }

    def step_skipped(self, tx: Any) -> jax.Array:
        """Whether all gradients of the last round were dropped."""
        return (self.mini_step == 0) & (self.skip_state.kept == 0) & (self.skip_state.skipped > 0)


@register_value
class AccumulatingTransformation(GradientTransformationExtraArgs):
    """What `MultiSteps` returns: a transformation that can tell whether its last call made an update."""

    __slots__ = ()

    @property
    def inner_opt(self) -> Any:
        """The transformation that gets the mean gradients."""
        return self.arguments["opt"]

    def has_updated(self, state: MultiStepsState) -> jax.Array:
        """Whether the call that returned this state ended a round and let the inner transformation update."""
        check_state("MultiSteps.has_updated", state, MultiStepsState)
        return (state.mini_step == 0) & (state.skip_state.kept > 0)

    def gradient_transformation(self) -> "AccumulatingTransformation":
        """Itself, which is a pair of `init` and `update` already."""
        return self


@transformation_of(AccumulatingTransformation)
def MultiSteps(
    opt: Transformation,
    every_k_schedule: Annotated[Any, Range(low=1.0, whole=True, example=2.0)],
    use_grad_mean: bool = True,
    should_skip_update_fn: Callable[..., Any] | None = skip_not_finite,
    accumulator_dtype: DType = None,
    *,
    averaged: tuple[str, ...] = (),
    weight: str | None = None,
    axis_name: AxisNames | None = None,
) -> GradientTransformationExtraArgs:
    """Runs `opt` at every k-th call, on the mean m of the k gradients; the updates of the other calls are zeros.

    ```
    m = m + (g - m) / n        for the n-th gradient of the round that is not dropped
    m = m + (g - m) w / W      with weights, W being their sum so far: so m = Σ w g / Σ w
    ```

    A dropped gradient counts as one of the k calls, so rounds stay aligned with the caller's; a round whose gradients
    are all dropped makes no update. `update(..., end_round=True)`, which may be traced, ends a round with that call.
    Schedules inside `opt` count updates, not calls. m is in at least float32.

    Args:
      opt: the optimizer that gets the means.
      every_k_schedule: k, a whole number; or, for a growing batch, a function of the number of updates made, whose
        values are rounded. A value below 1 or NaN is an error; where `jit` hides it, the call makes an update.
      use_grad_mean: False for the sum of the gradients, with weights Σ w g.
      should_skip_update_fn: `f(gradients, updates made, params) -> (skip, report)`, where `skip` is whether to drop
        these gradients and `report` a tree of arrays to store in the state; `gradtx.skipping` has
        two. None drops nothing.
      averaged: the names of scalar arguments of `update`, such as "value", of which `opt` gets the mean over the round;
        for all other extra arguments it gets those of the last call of the round.
      weight: the name of a scalar argument of `update` that is the weight w of the gradient, such as "tokens" for their
        number in a micro-batch over which the gradient is a mean. Means of `averaged` have the same weights. A gradient
        of weight 0 is dropped, whatever it is. None for equal weights.
      axis_name: an axis of `jax.shard_map` along which the gradients are split: what one device drops, all drop. None
        if they are not split.
    """
    tx = as_inner("MultiSteps: opt", opt)
    skip_fn = _skip_nothing if should_skip_update_fn is None else should_skip_update_fn
    if not isinstance(averaged, tuple | list) or not all(isinstance(n, str) for n in averaged):
        raise TypeError(f"MultiSteps: averaged must be a tuple of names such as ('value',), got {averaged!r}")
    if weight is not None and not isinstance(weight, str):
        raise TypeError(
            f"MultiSteps: weight must be the name of an argument of update such as 'tokens', or None, got {weight!r}"
        )
    given = averaged if weight is None else (*averaged, weight)

    def judged(updates: Updates, step: jax.Array, params: Params, w: jax.Array | None) -> tuple[jax.Array, Any]:
        skip, report = jax.tree.map(jnp.asarray, skip_fn(updates, step, params))
        if skip.shape or skip.dtype != bool:
            raise TypeError(
                f"MultiSteps: should_skip_update_fn must return a boolean scalar and a report, got {skip.dtype} "
                f"of shape {skip.shape}"
            )
        if w is not None:
            skip |= ~((w > 0) & jnp.isfinite(w))
        if axis_name is not None:
            skip, report = jax.tree.map(lambda x: _largest(x, axis_name), (skip, report))
        return skip, report

    def feed(means: Updates, state: OptState, params: Params, **extra: Any) -> tuple[Updates, OptState]:
        # Copies, since arrays that `opt` keeps in its state must not be shared with this state.
        copies = jax.tree.map(_copy, (means, {n: extra[n] for n in averaged}))
        return tx.update(copies[0], state, params, **{**extra, **copies[1]})

    fed = GradientTransformationExtraArgs(tx.init, feed)

    def micro_state(*, total_weight: jax.Array, **fields: Any) -> MicroStepsState | WeightedMicroStepsState:
        if weight is None:
            return MicroStepsState(**fields)
        return WeightedMicroStepsState(**fields, total_weight=total_weight)

    def init(params: Params) -> MultiStepsState:
        _whole(every_k_schedule)  # so that a function is checked here
        acc = jax.tree.map(lambda p: _nothing_yet(jnp.asarray(p), accumulator_dtype), params)
        report = jax.eval_shape(lambda g, p: skip_fn(g, jnp.zeros([], jnp.int32), p)[1], acc, params)
        micro = micro_state(
            kept=jnp.zeros([], jnp.int32),
            skipped=jnp.zeros([], jnp.int32),
            report=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), report),
            averages={n: jnp.zeros([], jnp.result_type(float)) for n in averaged},
            total_weight=jnp.zeros([], jnp.result_type(float)),
        )
        return MultiStepsState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), tx.init(params), acc, micro)

    def update(
        updates: Updates, state: OptState, params: Params = None, *, end_round: Any = False, **extra: Any
    ) -> tuple[Updates, OptState]:
        check_state("MultiSteps", state, MultiStepsState)
        if axis_name is None and getattr(skip_fn, "func", skip_fn) in (skip_not_finite, skip_large_updates):
            check_said("MultiSteps", params)
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        accs = align(treedef, state.acc_grads, "MultiSteps", "the state's acc_grads", updates, "the gradients")
        check_shapes("MultiSteps", "gradient", updates, leaves, accs)
        scalars = {n: _scalar(n, extra.get(n)) for n in given}
        w = None if weight is None else scalars[weight].astype(jnp.result_type(float))
        live = [i for i, g in enumerate(leaves) if not is_hole(g)]

        micro = state.skip_state
        skip, report = judged(updates, state.gradient_step, params, w)
        kept = jnp.where(state.mini_step == 0, 0, micro.kept) + jnp.where(skip, 0, 1)
        total = kept
        if w is not None:
            total = jnp.where(state.mini_step == 0, 0, micro.total_weight) + jnp.where(skip, 0, w)
        for i in live:
            accs[i] = _accumulated(accs[i], leaves[i], skip, kept, w, total, mean=use_grad_mean)
        averages = {n: _accumulated(micro.averages[n], scalars[n], skip, kept, w, total, mean=True) for n in averaged}
        made = safe_increment(state.mini_step)
        is_last = (made >= _whole(every_k_schedule)) | _flag(end_round)
        applies = is_last & (kept > 0)

        means = treedef.unflatten([None if is_hole(g) else acc for g, acc in zip(leaves, accs, strict=True)])
        known = {**extra, **averages}
        new, inner_opt_state = run_if(applies, "MultiSteps", fed, means, state.inner_opt_state, params, known)
        new_state = MultiStepsState(
            mini_step=jnp.where(is_last, 0, made),
            gradient_step=jnp.where(applies, safe_increment(state.gradient_step), state.gradient_step),
            inner_opt_state=inner_opt_state,
            acc_grads=treedef.unflatten(accs),
            skip_state=micro_state(
                kept=kept,
                skipped=jnp.where(skip, safe_increment(micro.skipped), micro.skipped),
                report=jax.tree.map(_stored, report, micro.report),
                averages=averages,
                total_weight=total,
            ),
        )
        return new, new_state

    return GradientTransformationExtraArgs(
        init,
        update,
        parts=lambda state: {"inner_opt_state": (opt, state.inner_opt_state)},
        needs=(*given, *needs(opt)),
    )


@functools.partial(jax.jit, static_argnames="mean")
def _accumulated(
    acc: jax.Array, x: Any, skip: jax.Array, n: jax.Array, w: jax.Array | None, total: jax.Array, *, mean: bool
) -> jax.Array:
    """The mean (or sum) of n values from that of n - 1 values; for n = 1, `acc` is ignored.

    Without weights `w` the total is n.
    """
    wide, x = widen((acc, x))
    real = jnp.real(x).dtype
    with promotion(wide, x):
        if not mean:
            x = x if w is None else x * w.astype(real)
            new = wide + x
        elif w is None:
            new = wide + (x - wide) / jnp.maximum(total, 1).astype(real)
        else:
            new = wide + (x - wide) * safe_divide(w, total).astype(real)
    return jnp.where(skip, acc, jnp.where(n == 1, x, new).astype(acc.dtype))


def _nothing_yet(p: jax.Array, dtype: Any) -> jax.Array:
    return zeros_like(p, compute_dtype(p) if dtype is None else dtype)


def _copy(acc: jax.Array) -> jax.Array:
    return copy_of(acc, compute_dtype(acc))


def _stored(new: Any, old: jax.Array) -> jax.Array:
    new = new if isinstance(new, jax.Array) else jnp.asarray(new)
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def _scalar(name: str, value: Any) -> jax.Array:
    if value is None or jnp.ndim(value) != 0:
        shape = "" if value is None else f", a scalar, got shape {jnp.shape(value)}"
        raise ValueError(f"MultiSteps: update needs {name}{shape}: call update(updates, state, params, {name}=...)")
    return jnp.asarray(value)


def _flag(end_round: Any) -> jax.Array:
    flag = jnp.asarray(end_round)
    if flag.shape or flag.dtype != bool:
        raise TypeError(
            f"MultiSteps: end_round must be True or False, got {flag.dtype} of shape {flag.shape}: whether the round "
            f"ends with this call"
        )
    return flag


def _largest(x: jax.Array, axis_name: Any) -> jax.Array:
    number = x.astype(jnp.int32) if x.dtype == bool else x
    return jax.lax.pmax(number, axis_name).astype(x.dtype)


def _whole(k: Any) -> jax.Array:
    if jnp.ndim(k) != 0:
        raise ValueError(
            f"MultiSteps: every_k_schedule must be a scalar at each step, got shape {jnp.shape(k)}; "
            f"to train a population, jax.vmap over the transformation"
        )
    if not isinstance(k, Tracer) and not np.round(k) >= 1:
        raise ValueError(f"MultiSteps: every_k_schedule must be at least 1 at each step, got {k}")
    k = jnp.round(jnp.asarray(k, jnp.result_type(float)))
    return jnp.where(k >= 1, k, 1).astype(jnp.int32)
