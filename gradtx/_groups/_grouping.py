# SPDX-License-Identifier: Apache-2.0
"""Groups of parameters with hyperparameters of their own, other rules, or none at all."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx._groups._factors import Factor
from gradtx._groups._overriding import find_argument, is_hyperparameter, replaced, value_at
from gradtx._groups._planning import FROZEN, OtherRule, Override, of_rule, other_transformations, plan
from gradtx._roles._boxing import is_partial, looks, run_in_boxes
from gradtx.core._factory import transformation
from gradtx.core._ranges import is_array
from gradtx.core._selectors import check_where, described
from gradtx.core._transformation import GradientTransformationExtraArgs, check_transformation, is_transformation
from gradtx.core._trees import is_none
from gradtx.core._types import OptState, Params, Updates


@transformation
def groups(rules: Sequence[tuple[Any, Any]], base: Any) -> GradientTransformationExtraArgs:
    """Runs `base` with other hyperparameters for some of the parameters, or another rule, or without them.

    ```
    groups([("embed/**", {"learning_rate": times(0.1)}), (("bias", "norm*/**"), {"weight_decay": 0.0}),
            ("head/**", sgd(0.1)), ("backbone/**", "frozen")], adamw(1e-3))
    ```

    Numbers and schedules are handed to the one base, whose stages run once for all groups, so that the cost does not
    grow with their number. Other rules, and options that are not numbers, are transformations of their own, whose
    global norms are of their own parameters, as in `partition`: a clip of the whole norm belongs before `groups`.

    Args:
      rules: pairs of a choice of parameters, as for `where`, and what is different for them: a dictionary of
        hyperparameters of the base, by the name of its argument or of the only stage that has one, with numbers,
        schedules, `times(...)`, `layerwise_decay(...)` or `mup(...)` of the base's value; a transformation; or
        "frozen" for no state and no update: their updates are None. Parameters that no rule chooses have the base.
      base: the transformation of all others.

    Raises:
      ValueError: for a rule that chooses nothing, for two that say something of the same hyperparameter of a parameter,
        and for hyperparameters that are not of single parameters, with paths and rules.
    """
    checked = checked_rules(rules, base)
    plans: dict[Any, GradientTransformationExtraArgs] = {}  # it would else be made at each update
    said = [value for _, what in checked if isinstance(what, Override) for _, value in what.entries]
    of_all = [value for value in said if isinstance(value, Factor) and value.of_all]
    traced = any(isinstance(x, Tracer) for x in jax.tree.leaves((rules, base)))

    def run(tree: Any, partial: bool) -> GradientTransformationExtraArgs:
        key = looks(tree), partial
        if key in plans:
            return plans[key]
        # What is kept must not hold numbers that are traced here and now.
        with contextlib.nullcontext() if traced else jax.ensure_compile_time_eval():
            made = plan(checked, base, tree, partial)
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
    """The rules in the form that plans are made from, or an error for what are none."""
    check_transformation("groups: base", base)
    if not isinstance(rules, Sequence) or isinstance(rules, str) or not rules:
        raise TypeError(f"groups: rules must be pairs of a choice of parameters and what differs, got {rules!r}")
    return tuple(_checked_rule(i, rule, base) for i, rule in enumerate(rules))


def _checked_rule(i: int, rule: Any, base: Any) -> tuple[Any, Any]:
    """A choice of parameters and what is different for them."""
    if not isinstance(rule, tuple | list) or len(rule) != 2:
        raise TypeError(f"groups: rule {i} must be a pair of a choice of parameters and what differs, got {rule!r}")
    chosen, what = check_where(f"groups: rule {i}", rule[0]), rule[1]
    if isinstance(what, str) and what == FROZEN:
        return chosen, FROZEN
    if is_transformation(what):
        return chosen, OtherRule(f"rule {i}", what)
    if not isinstance(what, Mapping) or not what:
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
        # None or a number may make another state; numbers in the place of numbers do not.
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
                changed = replaced(variant, path, argument, value)  # an error for a value out of range
            variant = variant if numeric else changed
        if numeric:
            entries.append(((path, argument), value))
    label = None if variant is base else f"rule {i}"
    return chosen, Override(label, variant, tuple(entries))
