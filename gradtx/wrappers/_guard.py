# SPDX-License-Identifier: Apache-2.0
"""Skipping bad steps: those with non-finite gradients, and those that guard rules refuse."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._factory import transformation
from gradtx.core._kinds import AxisNames
from gradtx.core._over_devices import Names, sum_over, varying
from gradtx.core._ranges import PositiveInt
from gradtx.core._roles import carried_split
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._safe import safe_sqrt
from gradtx.tree._reductions import global_norm, norm_known
from gradtx.wrappers._guard_rules import GuardedStep, GuardRule, SkipReason
from gradtx.wrappers._skipping import floating_leaves, run_if, select


class GuardState(NamedTuple):
    """The number of skipped steps in all and since the last step taken; the reason of the last skip; the last finite
    norm of the gradients, also of a skipped step; the states of the rules; the inner state.
    """

    skipped: jax.Array
    consecutive_skips: jax.Array
    last_reason: jax.Array
    norm: jax.Array
    rules: tuple
    inner_state: OptState

    main_part = "inner_state"

    def metrics(self) -> dict[str, jax.Array]:
        counts = {n: getattr(self, n) for n in ("skipped", "consecutive_skips", "last_reason")}
        return {**counts, "grad_norm": self.norm}

    def step_skipped(self, tx: Any) -> jax.Array:
        return self.consecutive_skips > 0


@transformation
def guard(
    inner: Transformation,
    *rules: Any,
    max_consecutive_skips: PositiveInt | None = 16,
    axis_name: AxisNames | None = None,
) -> GradientTransformationExtraArgs:
    """Skips bad steps: the updates are 0, `inner` does not run and its state does not change.

    A step is bad if the squared norm of its gradients, or the loss if given (`value=loss`), is not finite, or if one of
    the rules refuses it: `guard(adamw(1e-3), norm_spike(), loss_spike())`. `metrics` has the number of skipped steps
    and the `SkipReason` of the last one.

    Args:
      rules: those of `gradtx.skipping` (`norm_spike`, `loss_spike`, `skip_when`), or a `GuardRule` of your own.
      max_consecutive_skips: after this many skips in a row the rules are overruled: the next finite step is taken and
        they start anew, since what looked like a spike has become the normal level. None to never overrule them. A
        non-finite step is never taken.
      axis_name: an axis of `jax.shard_map` along which the gradients are split: all its devices skip the same steps,
        judged by the norm over all of them and their mean loss. A gradient that every device has whole by its type
        counts once; where there are no such types (`check_vma=False`, `pmap`), use `gradtx.sharding.over_axes`. None if
        they are not split.

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
        if axis_name is None:
            check_said("guard", params)
        leaves = floating_leaves(updates)
        # `over_axes` says how gradients are split
        if axis_name is None or any(map(carried_split, leaves)):
            with norm_known(leaves) as norm:
                return judged(norm, updates, state, params, extra)
        return judged(_norm(leaves, axis_name), updates, state, params, extra)

    def judged(norm: Any, updates: Updates, state: Any, params: Params, extra: dict) -> tuple[Updates, GuardState]:
        norm = norm.astype(state.norm.dtype)
        value = _loss(extra.get("value"), state.norm.dtype, axis_name)
        step = GuardedStep(updates, params, norm, value, extra)
        measurable = jnp.isfinite(norm * norm)  # a second moment of these gradients would be infinite for good
        finite = measurable if value is None else measurable & jnp.isfinite(value)

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
            norm=jnp.where(measurable, norm, state.norm),
            rules=tuple(after(rule, s) for rule, s in zip(rules, state.rules, strict=True)),
            inner_state=inner_state,
        )

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"inner_state": (inner, state.inner_state)}
    )


def _norm(leaves: list, axis_name: Any) -> jax.Array:
    """The norm of gradients that are split along these axes of `jax.shard_map`."""
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    types_tell = bool(varying(jax.lax.axis_index(names[0])))
    groups: dict[Names, list[Any]] = {}
    for x in leaves:
        # A gradient that every device has whole counts once.
        over = tuple(n for n in names if n in varying(x)) if types_tell else names
        groups.setdefault(over, []).append(x)
    norms = {over: global_norm(group).astype(jnp.result_type(float)) for over, group in groups.items()}
    return safe_sqrt(sum_over({over: norm**2 for over, norm in norms.items()})) if norms else global_norm(leaves)


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
