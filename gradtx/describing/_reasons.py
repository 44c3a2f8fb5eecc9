# SPDX-License-Identifier: Apache-2.0
"""Which rules gave a parameter its role and its hyperparameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradtx._groups._overriding import Times, find_argument, value_at
from gradtx._groups._planning import FROZEN
from gradtx._roles._boxing import with_roles
from gradtx._roles._rules import check_rules
from gradtx.core._prefixes import is_function
from gradtx.core._roles import opened
from gradtx.core._selectors import described, matches
from gradtx.describing._fate import is_made_by
from gradtx.describing._numbers import at_start, number_text
from gradtx.describing._routes import RouteNode
from gradtx.describing._stages import called


def role_source(root: RouteNode, path: str) -> str:
    """The source of a parameter's role, as text: a rule, a function or a tree."""
    node = next(node for node in root.through(path) if is_made_by(node, with_roles))
    rules, leaf = check_rules("with_roles", node.tx.arguments["rules"]), node.seen[path]
    if is_function(rules):
        return f"guessed by {described(rules)}"
    if not _are_pairs(rules):
        return "from the tree of roles"
    i = next(i for i, (where, _) in enumerate(rules) if matches(where, path, opened(leaf), None))
    where, said = rules[i]
    return f"by rule {i} ({described(where)})" + (f", guessed by {described(said)}" if is_function(said) else "")


def _are_pairs(rules: Any) -> bool:
    """Whether these are pairs as `check_rules` returns them, not a tree of roles."""
    return type(rules) is tuple and all(type(rule) is tuple and len(rule) == 2 for rule in rules)


def overrides(node: RouteNode, path: str) -> list[str]:
    """What the rules of groups change for a parameter, a sentence for each rule."""
    assert node.plan is not None  # it is a node of groups
    said = node.plan.said[node.plan.names.index(path)]
    if said is None or not said.rules:
        return ["groups: no rule chooses it"]
    sentences = []
    for number in said.rules:
        where, what = node.tx.arguments["rules"][number]
        sentences.append(
            f"groups: rule {number} ({described(where)}): {_change(node.tx.arguments['base'], what, said)}"
        )
    return sentences


def _change(base: Any, what: Any, said: Any) -> str:
    if isinstance(what, str) and what == FROZEN:
        return FROZEN
    if not isinstance(what, Mapping):
        return f"runs {called(what)}"
    changes = []
    for name, value in what.items():
        argument = find_argument(base, name)
        before = value_at(base, *argument)
        if argument in said.entries:
            changes.append(f"{name} {number_text(before)} -> {_number_here(before, said.entries[argument])}")
        else:
            changes.append(f"{name} {before!r} -> {value!r}")
    return ", ".join(changes)


def _number_here(before: Any, entry: Any) -> str:
    """The value of the parameter's group as text: its own, or a multiple of the base's."""
    if isinstance(entry, Times | np.ndarray):
        factors = [entry.factor] if isinstance(entry, Times) else list(entry.reshape(-1))
        base, *found = (at_start(x) if callable(x) else x for x in (before, *factors))
        values = tuple(float(base * x) for x in found)
        shown = number_text(values[0] if isinstance(entry, Times) else values)
        return f"{shown} at step 0" if any(map(callable, (before, *factors))) else shown
    return number_text(entry if callable(entry) else float(entry))
