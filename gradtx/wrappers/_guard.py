# SPDX-License-Identifier: Apache-2.0
"""Leaving out bad steps: gradients that are not finite, and what rules speak against."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._factory import transformation
from gradtx.core._ranges import PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._safe import safe_sqrt
from gradtx.tree._reductions import global_norm
from gradtx.wrappers._guard_rules import GuardedStep, GuardRule, SkipReason
from gradtx.wrappers._skipping import floating_leaves, run_if, select


class GuardState(NamedTuple):
    """How many steps were left out, in all and since the last that was taken; why the last of them was; the last
    finite norm of the gradients, be it of a step that was left out; what the rules remember; the inner state.
    """

    skipped: jax.Array
    consecutive_skips: jax.Array
    last_reason: jax.Array
    norm: jax.Array
    rules: tuple
    inner_state: OptState

    def metrics(self) -> dict[str, jax.Array]:
        return {n: getattr(self, n) for n in ("skipped", "consecutive_skips", "last_reason", "norm")}


@transformation
def guard(
    inner: Any, *rules: Any, max_consecutive_skips: PositiveInt | None = 16, axis_name: Any = None
) -> GradientTransformationExtraArgs:
    """Leaves out bad steps: the updates are 0, `inner` does not run, its state stays.

    A step is bad if the norm of its gradients, or the loss where it is given (`value=loss`), is not finite, or if one
    of the rules refuses it: `guard(adamw(1e-3), norm_spike(), loss_spike())`. `metrics` has how many were left out, and
    the `SkipReason` of the last.

    Args:
      rules: `norm_spike`, `loss_spike`, `skip_when`, or a `GuardRule` of your own.
      max_consecutive_skips: after as many steps without one taken, rules are overruled: the next finite step is taken,
        and they begin anew, for what looked like a spike has become the level. None: never. What is not finite is
        never taken.
      axis_name: an axis of `jax.shard_map` over which the gradients are split; all devices along it decide alike, by
        the norm of the whole and the mean loss.

    Raises:
      ValueError: if a rule needs the loss and it is not given.
    """
    tx = as_inner("guard: inner", inner)
    for i, rule in enumerate(rules):
        if not isinstance(rule, GuardRule):
            raise TypeError(f"guard: rules[{i}] must be a rule such as norm_spike(), got {rule!r}")

    def init(params: Params) -> GuardState:
        return GuardState(
            skipped=jnp.zeros([], jnp.int32),
            consecutive_skips=jnp.zeros([], jnp.int32),
            last_reason=jnp.zeros([], jnp.int32),
            norm=jnp.zeros([], jnp.result_type(float)),
            rules=tuple(rule.init() for rule in rules),
            inner_state=tx.init(params),
        )

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, GuardState]:
        check_state("guard", state, GuardState)
        norm = _norm(updates, axis_name).astype(state.norm.dtype)
        value = _loss(extra.get("value"), state.norm.dtype, axis_name)
        step = GuardedStep(updates, params, norm, value, extra)
        finite = jnp.isfinite(norm) if value is None else jnp.isfinite(norm) & jnp.isfinite(value)

        reason = jnp.asarray(SkipReason.NONE, jnp.int32)
        for rule, remembered in zip(reversed(rules), reversed(state.rules), strict=True):
            reason = jnp.where(_scalar(rule, rule.refuses(step, remembered)), jnp.int32(rule.reason), reason)
        enough = False if max_consecutive_skips is None else state.consecutive_skips >= max_consecutive_skips
        overruled = enough & (reason != SkipReason.NONE)
        take = finite & ((reason == SkipReason.NONE) | overruled)
        reason = jnp.where(finite, reason, jnp.int32(SkipReason.NON_FINITE))

        def after(rule: GuardRule, remembered: Any) -> Any:
            return select(take, rule.accept(step, select(overruled, rule.init(), remembered)), remembered)

        new, inner_state = run_if(take, "guard", tx, updates, state.inner_state, params, extra)
        return new, GuardState(
            skipped=jnp.where(take, state.skipped, safe_increment(state.skipped)),
            consecutive_skips=jnp.where(take, 0, safe_increment(state.consecutive_skips)),
            last_reason=jnp.where(take, state.last_reason, reason),
            norm=jnp.where(jnp.isfinite(norm), norm, state.norm),
            rules=tuple(after(rule, s) for rule, s in zip(rules, state.rules, strict=True)),
            inner_state=inner_state,
        )

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"inner_state": (inner, state.inner_state)}
    )


def _norm(updates: Updates, axis_name: Any) -> jax.Array:
    norm = global_norm(floating_leaves(updates))
    return norm if axis_name is None else safe_sqrt(jax.lax.psum(norm**2, axis_name))


def _loss(value: Any, dtype: Any, axis_name: Any) -> jax.Array | None:
    if value is None:
        return None
    if jnp.ndim(value) != 0:
        raise ValueError(f"guard: value must be a scalar, the loss of the step, got shape {jnp.shape(value)}")
    value = jnp.asarray(value).astype(dtype)
    return value if axis_name is None else jax.lax.pmean(value, axis_name)


def _scalar(rule: GuardRule, refused: Any) -> jax.Array:
    if jnp.ndim(refused) != 0:
        raise ValueError(f"guard: {rule!r} must say one True or False for a step, got shape {jnp.shape(refused)}")
    return jnp.asarray(refused).astype(bool)
