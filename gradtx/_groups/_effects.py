# SPDX-License-Identifier: Apache-2.0
"""Which parameters an argument of a transformation has an effect on, told by the rules that they are given to.

`init` is traced, so that nothing is assumed of masks, labels and wrappers.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gradtx._groups._overriding import Path, Times, replaced, value_at, with_entries
from gradtx.core._by_group import Began, noting
from gradtx.core._calls import Value, freeze
from gradtx.core._nesting import arguments_inside, inside
from gradtx.core._prefixes import MaskedNode
from gradtx.core._roles import Boxed, carried_role, is_absent, opened
from gradtx.core._selectors import named_leaves

ROUTING = {"masked": {"mask"}, "partition": {"param_labels"}}
"""Arguments that only say which parameters go where, which the rules that get them tell."""


def users(tx: Any, argument: tuple[Path, str], tree: Any, entries: Sequence[dict | None]) -> set[str]:
    """The paths of the parameters for which a rule in `tx` uses a number that differs between groups.

    The number is made to differ: which parameters are given to rules in which something differs?

    Args:
      entries: for each leaf of the tree the numbers of its group; None for a leaf that `tx` does not see.
    """
    path, name = argument
    entry = next(x[argument] for x in entries if x is not None and argument in x)
    if value_at(tx, path, name) is None:
        return set()
    first = Times(entry.reshape(-1)[0]) if isinstance(entry, np.ndarray) else entry
    groups = [None if x is None else int(argument in x) for x in entries]
    began = _began(with_entries(tx, path, name, [None, first]), tree, groups)
    names = set(named_leaves(tree).names)
    found = {n for x in began if x.differs for n in x.names}
    return found if found <= names else names  # unless a wrapper makes other trees


def options_without_use(base: Any, variant: Any, tree: Any, entries: Sequence[dict | None]) -> list[str]:
    """The arguments in which `variant` differs from `base` although no parameter that it sees is given to other rules.

    `entries` as for `users`.
    """
    found, groups = [], [None if x is None else 0 for x in entries]
    if all(x is None for x in groups):
        return []
    for path, name in arguments_inside(base):
        value = value_at(variant, path, name)
        if freeze(value) == freeze(value_at(base, path, name)):
            continue
        one = replaced(base, path, name, value)
        if _differ_by_rules_only(base, one) and _rules(base, tree, groups) == _rules(one, tree, groups):
            found.append(name)
    return found


def _differ_by_rules_only(a: Any, b: Any) -> bool:
    """Whether two transformations are built alike, with other rules on parameters or other routes to these at most."""
    if not (isinstance(a, Value) and isinstance(b, Value)):
        return a == b
    a, b = a.expanded, b.expanded  # type: ignore[attr-defined]  # values that are transformations have it
    if a == b or a.rule is not None and b.rule is not None:
        return True
    if a.factory is None or a.factory is not b.factory:
        return False
    ours, theirs = (list(inside(x.arguments)) for x in (a, b))
    holding = {keys[0].key for keys, _ in ours}
    own = [n for n in a.arguments if n not in holding | ROUTING.get(a.factory.name, set())]
    return (
        [keys for keys, _ in ours] == [keys for keys, _ in theirs]
        and all(freeze(a.arguments[n]) == freeze(b.arguments[n]) for n in own)
        and all(_differ_by_rules_only(x, y) for (_, x), (_, y) in zip(ours, theirs, strict=True))
    )


def _rules(tx: Any, tree: Any, groups: Sequence[int | None]) -> Any:
    """The rules by parameter; something that equals nothing else if `init` of the tree is an error."""
    try:
        began = _began(tx, tree, groups)
    except (ValueError, TypeError):
        return object()
    return {name: [x.source for x in began if name in x.names] for name in named_leaves(tree).names}


def _began(tx: Any, tree: Any, groups: Sequence[int | None]) -> list[Began]:
    """The rules whose `init` runs for a tree of which only the leaves with a group are there."""
    _, leaves, treedef = named_leaves(tree)
    boxes = [
        x if is_absent(x) else MaskedNode() if group is None else Boxed(_shape(opened(x)), carried_role(x), group)
        for x, group in zip(leaves, groups, strict=True)
    ]
    # Off any mesh: a plan is made at once, also in a trace for devices that do not exist.
    with noting() as began, jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        jax.eval_shape(tx.init, treedef.unflatten(boxes))
    return began


def _shape(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "dtype") else x
