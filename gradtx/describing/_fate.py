# SPDX-License-Identifier: Apache-2.0
"""What the transformations that see a parameter do with it."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx._groups._overriding import GroupSchedule, Times
from gradtx._groups._planning import FROZEN
from gradtx._roles._boxing import with_roles
from gradtx.core._calls import Value
from gradtx.core._nesting import chained, inside
from gradtx.core._ranges import is_array, is_number
from gradtx.core._roles import Boxed, Role, is_box
from gradtx.core._transformation import GradientTransformation, GradientTransformationExtraArgs
from gradtx.describing._routes import RouteNode
from gradtx.describing._stages import called
from gradtx.transforms._constraining import set_to_zero
from gradtx.wrappers._freezing import freeze
from gradtx.wrappers._partition import partition

Multiple = float | tuple[float, float] | str
"""A multiple of the base's value, the least and the greatest multiple in a stack, or `OWN`."""

OWN = "own"
"""Stands for a value that is no constant multiple of the base's, such as another schedule."""


@functools.cache
def _zeros() -> tuple[Any, ...]:
    """What makes all updates zero."""
    return set_to_zero(), freeze(True).expanded.arguments["inner"]


def role_of(root: RouteNode, path: str) -> Role | None:
    """The role that the outermost `with_roles` gives a parameter; None without one."""
    for node in root.through(path):
        box = node.children[0].seen.get(path) if is_made_by(node, with_roles) else None
        if isinstance(box, Boxed):
            return box.role
    return None


def is_made_by(node: RouteNode, factory: Any) -> bool:
    return isinstance(node.tx, Value) and node.tx.factory is factory.factory


class _Found(NamedTuple):
    """The name of what updates a parameter, whether a label chose it, and whether it is more than a plain stage."""

    name: str
    chosen: bool
    main: bool


def rule_of(root: RouteNode, path: str) -> str | None:
    """The name of the optimizer, stage or label that updates a parameter, `FROZEN`, or None if nothing sees it."""
    found = _rule(root, path)
    return None if found is None else found.name


def _rule(node: RouteNode, path: str, of_groups: bool = False) -> _Found | None:
    if path not in node.seen:
        return None
    if node.plan is not None and path not in node.children[0].seen:
        return _Found(FROZEN, True, True)
    if not node.children:
        name = FROZEN if node.tx in _zeros() else stage_name(node)
        return _Found(name, False, name == FROZEN or _remembers(node))
    found = [rule for child in node.children if (rule := _rule(child, path, node.plan is not None)) is not None]
    if not found:
        return None
    if any(rule.name == FROZEN for rule in found):
        return _Found(FROZEN, True, True)
    best = [rule for rule in found if rule.main] or found
    name, chosen, main = " + ".join(dict.fromkeys(rule.name for rule in best)), best[0].chosen, best[0].main
    if node.is_recipe:
        return _Found(name if chosen else node.factory, chosen, main or chained(node.tx.expanded) is not None)
    if node.factory and not any(inside(node.tx.arguments)):
        return _Found(node.factory, chosen, True)  # a stage that makes the transformation inside by itself
    if is_made_by(node, partition):
        label, child = label_of(node, path)
        # A chain has no name of its own; its label says more than the names of its stages.
        return _Found(str(label) if chained(child.tx) is not None and not of_groups else name, True, True)
    return _Found(name, chosen, main)


def label_of(node: RouteNode, path: str) -> tuple[Any, RouteNode]:
    """The label that a partition gives a parameter, and the transformation with that label."""
    labels = list(node.tx.arguments["transforms"])
    return next((label, child) for label, child in zip(labels, node.children, strict=True) if path in child.seen)


def stage_name(node: RouteNode) -> str:
    """The factory's name, or that of the function of a transformation that gradtx did not make."""
    if node.factory:
        return "set_to_zero" if node.tx in _zeros() else node.factory
    if isinstance(node.tx, GradientTransformation) and type(node.tx) not in (
        GradientTransformation,
        GradientTransformationExtraArgs,
    ):
        return called(node.tx).partition("(")[0]  # a class that prints as a call, such as that of inject_hyperparams
    update = node.tx.update
    name = getattr(update, "__qualname__", type(node.tx).__name__).partition(".<locals>")[0]
    package = (getattr(update, "__module__", None) or "").partition(".")[0]
    return name if package in ("", "gradtx", "__main__") else f"{package}.{name}"


def _remembers(node: RouteNode) -> bool:
    """Whether a stage keeps slots for each parameter, as far as is known."""
    rule = node.tx.rule if isinstance(node.tx, GradientTransformation) else None
    return bool(rule.slots) if rule is not None else node.factory not in ("identity", "stateless")


def multiple_of(root: RouteNode, path: str, name: str) -> Multiple:
    """A parameter's value of a hyperparameter as a multiple of the base's value; 1 outside of groups."""
    found = _multiple(root, path, name)
    return 1.0 if found is None else found


def _multiple(node: RouteNode, path: str, name: str) -> Multiple | None:
    """`multiple_of` in one part of a transformation; None if that has no such hyperparameter."""
    if path not in node.seen:
        return None
    has_one = isinstance(node.tx, Value) and node.tx.factory is not None and name in node.tx.factory.hyperparameters
    own = _ratio(node.tx.arguments[name], node.seen[path]) if has_one else None
    inside = [m for child in node.children if (m := _multiple(child, path, name)) is not None]
    if own is None or not inside:
        return next((m for m in inside if m != 1), inside[0] if inside else own)
    # A recipe's argument may concern some of its stages only, as Muon's learning rate beside `adam_learning_rate`.
    return own if any(m != 1 for m in inside) else 1.0


def _ratio(value: Any, box: Any) -> Multiple | None:
    """The value of a group divided by that of the first group, which has the base's values."""
    if value is None:
        return None
    group = box.group if is_box(box) else None
    numbers = (group,) if isinstance(group, int) else group
    if isinstance(value, GroupSchedule):
        found = [_times(value, i) for i in numbers or ()]
    elif numbers is not None and is_array(value) and jnp.ndim(value) == 1 and not isinstance(value, Tracer):
        values = np.asarray(value, np.float64)
        found = [_divided(values[i], values[0]) for i in numbers]
    else:
        return 1.0
    if OWN in found:
        return OWN
    least, greatest = min(found), max(found)
    return least if least == greatest else (least, greatest)


def _times(schedule: GroupSchedule, group: int) -> Any:
    entry = schedule.entries[group]
    if entry is None:
        return 1.0
    if isinstance(entry, Times):
        return entry.factor if is_number(entry.factor) else OWN
    return _divided(entry, schedule.base) if is_number(entry) and is_number(schedule.base) else OWN


def _divided(value: float, base: float) -> Any:
    if value == base:
        return 1.0
    return float(f"{value / base:.12g}") if base else OWN  # 0.1 and not 0.10000000000000002


def decays(root: RouteNode, path: str) -> bool:
    """Whether a stage that sees the parameter applies weight decay to it."""
    stages = [node for node in root.through(path) if not node.is_recipe]
    given = [numbers_of(node, path).get("weight_decay", 0.0) for node in stages]
    return any(bool(np.any(x)) if isinstance(x, float | tuple) else True for x in given)


def numbers_of(node: RouteNode, path: str) -> dict[str, Any]:
    """The hyperparameters that a transformation has for one parameter, by name.

    A number; for a stack whose parameters differ, a tuple of numbers; a schedule of these; None for a traced value.
    """
    if not isinstance(node.tx, Value) or node.tx.factory is None:
        return {}
    given = {n: node.tx.arguments[n] for n in node.tx.factory.hyperparameters}
    return {n: _number(value, node.seen[path]) for n, value in given.items() if value is not None}


def _number(value: Any, box: Any) -> Any:
    group = box.group if is_box(box) else None
    if callable(value):
        return value if group is None else lambda step: _entries(value(step), group)
    if isinstance(value, Tracer):
        return None
    if jnp.ndim(value) == 0:
        return float(value)
    entries = np.asarray(_entries(np.asarray(value, np.float64), group))
    return tuple(map(float, entries.ravel())) if entries.ndim else float(entries)


def _entries(values: Any, group: Any) -> Any:
    """The value of a parameter's group, or the values of the groups in a stack, if values differ by group."""
    return values if group is None or np.ndim(values) == 0 else np.asarray(values)[np.asarray(group)]
