# SPDX-License-Identifier: Apache-2.0
"""Groups of parameters with their own hyperparameters, with other transformations, or frozen."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx._groups._factors import Factor
from gradtx._groups._overriding import find_argument, holds_tracers, is_hyperparameter, replaced, value_at
from gradtx._groups._planning import FROZEN, OtherRule, Override, of_rule, other_transformations, plan
from gradtx._roles._boxing import looks, run_in_boxes
from gradtx.core._factory import transformation
from gradtx.core._prefixes import is_partial
from gradtx.core._ranges import is_array
from gradtx.core._selectors import check_where, described
from gradtx.core._transformation import GradientTransformationExtraArgs, check_transformation, is_transformation
from gradtx.core._trees import is_none
from gradtx.core._types import OptState, Params, Updates


@transformation
def groups(
    rules: Sequence[tuple[Any, Any]], base: Any, *, first_match: bool = False
) -> GradientTransformationExtraArgs:
    """Runs `base` with other hyperparameters for some parameters, other transformations for some, and freezes some.

    ```
    groups([("embed/**", {"learning_rate": times(0.1)}), (("bias", "norm*/**"), {"weight_decay": 0.0}),
            ("head/**", sgd(0.1)), ("backbone/**", "frozen")], adamw(1e-3))
    ```

    Numbers and schedules are given to the base, whose stages run once for all groups, so that the cost does not grow
    with their number. Other transformations, and options that are not numbers, run separately, with global norms over
    their own parameters, as in `partition`: clipping by the norm of all gradients belongs before `groups`.

    Args:
      rules: pairs (where, change). A change is a dictionary of hyperparameters of the base, by the name of its argument
        or of the only stage that has one, with numbers, schedules, or `times(...)`, `layerwise_decay(...)` or
        `mup(...)` of the base's value; a transformation; or "frozen" for no state and None as updates. A multiple of
        a recipe's `learning_rate` is one of its other rates too, such as Muon's `adam_learning_rate`. Products of
        multiples are multiples; {} changes nothing.
      base: the transformation of the parameters that no rule chooses.
      first_match: whether of several rules that choose a parameter only the first counts, as in `roles`:
        `[("head/**", {}), ("**", "frozen")]` freezes all but the head. Else they are combined, and must not contradict
        each other.

    Raises:
      ValueError: for a rule that chooses nothing, for two rules that give a parameter the same hyperparameter, for
        arguments that have no effect on any parameter of the rule, and for numbers of stages that do not work on single
        parameters, with paths and rules.
    """
    checked = checked_rules(rules, base)
    plans: dict[Any, GradientTransformationExtraArgs] = {}  # cached, as making one is slow
    said = [value for _, what in checked if isinstance(what, Override) for _, value in what.entries]
    of_all = [value for value in said if isinstance(value, Factor) and value.of_all]
    traced = holds_tracers(rules, base)

    def run(tree: Any, partial: bool) -> GradientTransformationExtraArgs:
        key = looks(tree), partial
        if key in plans:
            return plans[key]
        # What is cached must not hold tracers.
        with contextlib.nullcontext() if traced else jax.ensure_compile_time_eval():
            made = plan(checked, base, tree, partial, first_match)
        tx = run_in_boxes("groups", made.tx, made.box)
        return tx if traced else plans.setdefault(key, tx)

    def init(params: Params) -> OptState:
        return run(params, is_partial(params)).init(params)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        if params is None and any(map(is_none, jax.tree.leaves(updates, is_leaf=is_none))):
            for factor in of_all:
                raise ValueError(
                    f"groups: where gradients are None, {factor!r} is not known from them: "
                    f"call update(updates, state, params)"
                )
        known = updates if params is None else params
        return run(known, True).update(updates, state, params, **extra)

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        others = other_transformations(checked)
        if not others:
            return {"": (base, state)}
        inner = state.inner_states
        return {f"inner_states.{n}.inner_state": (others.get(n, base), x.inner_state) for n, x in inner.items()}

    return GradientTransformationExtraArgs(init, update, parts=parts)


def checked_rules(rules: Any, base: Any) -> tuple[tuple[Any, Any], ...]:
    """The rules in the form that `plan` takes; raises for anything that is no rules."""
    check_transformation("groups: base", base)
    if not isinstance(rules, Sequence) or isinstance(rules, str) or not rules:
        raise TypeError(f"groups: rules must be pairs of a choice of parameters and what differs, got {rules!r}")
    return tuple(_checked_rule(i, rule, base) for i, rule in enumerate(rules))


def _checked_rule(i: int, rule: Any, base: Any) -> tuple[Any, Any]:
    """The pair of where and `FROZEN`, an `OtherRule` or an `Override`."""
    if not isinstance(rule, tuple | list) or len(rule) != 2:
        raise TypeError(f"groups: rule {i} must be a pair of a choice of parameters and what differs, got {rule!r}")
    chosen, what = check_where(f"groups: rule {i}", rule[0]), rule[1]
    if isinstance(what, str) and what == FROZEN:
        return chosen, FROZEN
    if is_transformation(what):
        return chosen, OtherRule(f"rule {i}", what)
    if not isinstance(what, Mapping):
        raise TypeError(
            f"groups: rule {i} must say what differs: a dictionary of hyperparameters, a transformation or "
            f"{FROZEN!r}, got {what!r}"
        )
    entries, variant = [], base
    for name, value in what.items():
        path, argument = find_argument(base, name)
        if (path, argument) in dict(entries):
            raise ValueError(f"groups: rule {i} ({described(chosen)}) gives {argument} twice")
        before = value_at(base, path, argument)
        # Replacing None by a number, or the reverse, may change the state; replacing a number by another does not.
        numeric = is_hyperparameter(base, path, argument) and before is not None and value is not None
        if isinstance(value, Factor) and not numeric:
            raise TypeError(
                f"groups: rule {i} ({described(chosen)}): {name} of the base is {before!r}, which has no multiples, "
                f"got {value!r}"
            )
        if not isinstance(value, Factor):
            with of_rule(i, chosen):
                if value is not None and is_array(value) and jnp.ndim(value):
                    raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
                changed = replaced(variant, path, argument, value)  # raises for a value out of range
            variant = variant if numeric else changed
        if numeric:
            entries.append(((path, argument), value))
    label = None if variant is base else f"rule {i}"
    return chosen, Override(label, variant, tuple(entries))
