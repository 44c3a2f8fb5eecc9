# SPDX-License-Identifier: Apache-2.0
"""Roles by rules on paths."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ShapesTree
from gradtx.core._nesting import is_factory
from gradtx.core._prefixes import is_function, spread
from gradtx.core._roles import Role, is_absent, opened
from gradtx.core._selectors import OfKind, Selector, check_where, described, matches, named_leaves, what_instead
from gradtx.core._sentences import listed
from gradtx.core._trees import show_path
from gradtx.core._types import Params


@checked
def roles(params: ShapesTree, rules: Any, *, partial: bool = False) -> Any:
    """The role of each parameter, as a tree like the parameters. None has no role.

    Args:
      params: the parameters, or their shapes.
      rules: pairs (where, `Role`), of which the first that matches counts. Instead of a role, or of all rules, a
        function from a tree of parameters to their roles, such as `infer_roles`; instead of all rules a tree of roles,
        or a prefix of one.
      partial: whether parameters may be missing in the tree, so that rules may match none.

    Raises:
      ValueError: for parameters that no rule matches, for rules that no parameter uses, and for axes that a parameter
        does not have, with the paths and the rules.
    """
    rules = check_rules("roles", rules)
    names, leaves, treedef = named_leaves(params)
    values = [None if is_absent(leaf) else opened(leaf) for leaf in leaves]
    if _is_sequence(rules):
        found = _by_rules(names, values, rules, partial)
        said = [None if i is None else rules[i][1] for i in found]
        for i, (_, role) in enumerate(rules):
            if not _is_role(role) and i in found:
                meant = [x if i == j else None for x, j in zip(values, found, strict=True)]
                answers = treedef.flatten_up_to(_of_tree(role, jax.tree.unflatten(treedef, meant)))
                said = [a if i == j else r for a, j, r in zip(answers, found, said, strict=True)]
        sources = ["" if i is None else f" by the rule {_as_text(rules[i])}" for i in found]
    else:
        said = treedef.flatten_up_to(_of_tree(rules, jax.tree.unflatten(treedef, values)))
        sources = [""] * len(said)
    said = [None if value is None else role for value, role in zip(values, said, strict=True)]
    for name, value, role, source in zip(names, values, said, sources, strict=True):
        if role is not None:
            _check_fit(name, value, role, source)
    return jax.tree.unflatten(treedef, said)


def check_rules(context: str, rules: Any) -> Any:
    """The rules, a sequence of them as a tuple; raises for anything that is no rules."""
    if isinstance(rules, OfKind | Selector | str):
        raise TypeError(f"{context}: rules must be pairs of a choice of parameters and a Role, got {rules!r}")
    if rules is None:
        raise TypeError(f"{context}: rules must be pairs of a choice of parameters and a Role, got None")
    if is_factory(rules):
        raise TypeError(
            f"{context}: rules must be rules or a function of the parameters, got the factory {rules.__name__}"
        )
    if is_function(rules):
        return rules
    if not _is_sequence(rules):
        _check_tree(f"{context}: rules, pairs of a choice of parameters and a Role, or a tree of roles,", rules)
        return rules
    checked = []
    for i, rule in enumerate(rules):
        pair = isinstance(rule, tuple | list) and len(rule) == 2
        if not pair or not (_is_role(rule[1]) or is_function(rule[1])):
            raise TypeError(f"{context}: rules[{i}] must be a pair of a choice of parameters and a Role, got {rule!r}")
        chosen = check_where(f"{context}: rules[{i}]", rule[0])
        if kinds := _kinds_in(chosen):
            raise ValueError(
                f"{context}: rules[{i}] chooses by {kinds!r}, but these rules are to say what the kinds are"
            )
        checked.append((chosen, rule[1]))
    return tuple(checked)


def _of_tree(rules: Any, params: Params) -> Any:
    """The role of each parameter, as a tree like them, by a tree of roles or a function that makes one."""
    tree = rules(params) if is_function(rules) else rules
    if is_function(rules):
        _check_tree(f"roles: what {described(rules)} returns", tree)
    return spread("roles", "the tree of roles", tree, params, _is_role)


def _is_sequence(rules: Any) -> bool:
    """Whether this is a sequence of rules, not a tree of roles, which may be a list too."""
    if not isinstance(rules, tuple | list) or hasattr(rules, "_fields"):
        return False
    leaves = jax.tree.leaves(tuple(rules))
    return not leaves or not all(map(_is_role, leaves))


def _check_tree(what: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not _is_role(leaf):
            raise TypeError(f"{what} must hold a Role at {show_path(path)}, got {leaf!r}")


def _is_role(x: Any) -> bool:
    return isinstance(x, Role)


def _kinds_in(chosen: Any) -> OfKind | None:
    inner = chosen.chosen if isinstance(chosen, Selector) else chosen
    if isinstance(inner, tuple):
        return next(filter(None, map(_kinds_in, inner)), None)
    return inner if isinstance(inner, OfKind) else None


def _by_rules(names: list[str], values: list, rules: tuple, partial: bool) -> list[int | None]:
    """The number of the first rule that matches each parameter, None for those that are None."""
    found: list[int | None] = []
    for name, value in zip(names, values, strict=True):
        numbers = () if value is None else range(len(rules))
        found.append(next((i for i in numbers if matches(rules[i][0], name, value, None)), None))
    lacking = [name for name, value, i in zip(names, values, found, strict=True) if value is not None and i is None]
    if lacking:
        raise ValueError(
            f"roles: no rule for {listed(lacking)}; add one, or a last one for all that is left: ('**', Role())"
        )
    unused = [i for i in range(len(rules)) if i not in found]
    if unused and not partial:
        rows = [row for row in zip(names, values, found, strict=True) if row[1] is not None]
        reasons = [_why_unused(rules[i], rows, rules) for i in unused]
        raise ValueError(f"roles: rules without use: {listed(reasons, joint='; ')}")
    return found


def _why_unused(rule: tuple, rows: list[tuple], rules: tuple) -> str:
    for name, value, i in rows:
        if matches(rule[0], name, value, None):
            return f"{_as_text(rule)}, as {_as_text(rules[i])} comes before it and has {name or 'the root'}"
    return f"{_as_text(rule)}, which matches no parameter{what_instead(rule[0], [name for name, _, _ in rows])}"


def _as_text(rule: tuple) -> str:
    return f"({described(rule[0])}, {repr(rule[1]) if _is_role(rule[1]) else described(rule[1])})"


def _check_fit(name: str, value: Any, role: Role, source: str) -> None:
    try:
        _fitted(role, jnp.ndim(value))
    except ValueError as error:
        raise ValueError(
            f"roles: the role of {name or 'the root'}, {role!r}{source}, does not fit its shape "
            f"{jnp.shape(value)}: {error}"
        ) from None


# Cached, since the same few roles are checked for each parameter whenever a step is traced.
_fitted = functools.lru_cache(maxsize=4096)(Role.fitted)
