# SPDX-License-Identifier: Apache-2.0
"""Groups of parameters with hyperparameters of their own, other rules, or none at all."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.factory import transformation
from gradtx.core.transformation import GradientTransformationExtraArgs, check_transformation, is_transformation
from gradtx.core.types import OptState, Params, Updates
from gradtx.parameters.boxing import run_in_boxes
from gradtx.parameters.factors import Factor
from gradtx.parameters.matching import check_where
from gradtx.parameters.overriding import find_argument, is_hyperparameter, replaced
from gradtx.parameters.planning import FROZEN, OtherRule, Override, Plan, plan


@transformation
def groups(rules: Sequence[tuple[Any, Any]], base: Any) -> GradientTransformationExtraArgs:
    """Runs `base` with other hyperparameters for some of the parameters, or another rule, or without them.

    ```
    groups([("embed/**", {"learning_rate": times(0.1)}), (("bias", "norm*/**"), {"weight_decay": 0.0}),
            ("head/**", sgd(0.1)), ("backbone/**", "frozen")], adamw(1e-3))
    ```

    Numbers and schedules are handed to the one base, whose stages run once for all groups, so that the cost does not
    grow with their number. Other rules, and options that are not numbers, are transformations of their own.

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
    check_transformation("groups: base", base)
    if not isinstance(rules, Sequence) or isinstance(rules, str) or not rules:
        raise TypeError(f"groups: rules must be pairs of a choice of parameters and what differs, got {rules!r}")
    checked = tuple(_checked_rule(i, rule, base) for i, rule in enumerate(rules))
    plans: dict[Any, tuple[Plan, Any]] = {}  # by how the parameters look; it would else be made at each update

    def run(tree: Any, partial: bool) -> GradientTransformationExtraArgs:
        leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: x is None)
        key = treedef, tuple(map(jnp.shape, leaves)), partial
        if key not in plans:
            made = plan(checked, base, tree, partial)
            plans[key] = made, run_in_boxes("groups", made.tx, made.box)
        return plans[key][1]

    def init(params: Params) -> OptState:
        return run(params, not jax.tree.leaves(params)).init(params)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        known = updates if params is None else params
        return run(known, params is None).update(updates, state, params, **extra)

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        others = {what.label: what.tx for _, what in checked if isinstance(what, OtherRule)}
        if not others:
            return {"": (base, state)}
        inner = state.inner_states
        found = {n: (others.get(n, base), x.inner_state) for n, x in inner.items()}
        return {f"inner_states.{n}.inner_state": pair for n, pair in found.items()}

    return GradientTransformationExtraArgs(init, update, parts=parts)


def _checked_rule(i: int, rule: Any, base: Any) -> tuple[Any, Any]:
    """A choice of parameters and what is different for them, in the form that plans are made from."""
    if not isinstance(rule, tuple | list) or len(rule) != 2:
        raise TypeError(f"groups: rule {i} must be a pair of a choice of parameters and what differs, got {rule!r}")
    chosen, what = check_where(f"groups: rule {i}", rule[0]), rule[1]
    if what == FROZEN:
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
        numeric = is_hyperparameter(base, path, argument)
        if isinstance(value, Factor) and not numeric:
            raise TypeError(f"groups: rule {i}: {name} is no number, so it has no multiples, got {value!r}")
        if not isinstance(value, Factor):
            changed = replaced(variant, path, argument, value)  # an error for a value out of range
            variant = variant if numeric else changed
        if numeric:
            entries.append(((path, argument), value))
    label = None if variant is base else f"rule {i}"
    return chosen, Override(label, variant, tuple(entries))
