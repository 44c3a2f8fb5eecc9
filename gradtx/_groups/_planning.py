# SPDX-License-Identifier: Apache-2.0
"""The plan that rules of groups make for a tree of parameters: the group of each, and what runs."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gradtx._groups._effects import options_without_use, users
from gradtx._groups._factors import Factor, Parameter
from gradtx._groups._overriding import (
    Path,
    Times,
    check_reach,
    check_scalars,
    inherited,
    over,
    replaced,
    second_rates,
    value_at,
    with_entries,
    without_inherited,
)
from gradtx.core._calls import freeze
from gradtx.core._prefixes import MaskedNode, of_boxes
from gradtx.core._ranges import is_number
from gradtx.core._roles import Boxed, carried_role, carried_split, is_absent, is_box, opened
from gradtx.core._selectors import described, matches, named_leaves, what_instead
from gradtx.core._sentences import listed
from gradtx.wrappers._partition import partition

FROZEN = "frozen"
BASE = "base"

Argument = tuple[Path, str]


class OtherRule(NamedTuple):
    """Another transformation for the parameters of a rule."""

    label: str
    tx: Any


class Override(NamedTuple):
    """Other hyperparameters for the parameters of a rule; if they need a variant of the base, with its label."""

    label: str | None
    variant: Any
    entries: tuple[tuple[Argument, Any], ...]


@dataclasses.dataclass(frozen=True)
class Said:
    """What the rules determine for one parameter.

    Attributes:
      label: the transformation that runs: `BASE`, `FROZEN` or the label of a rule.
      rules: the numbers of the rules that choose it.
      entries: hyperparameters that differ from the base's; the value is an array for a stack whose parameters differ.
    """

    label: str
    rules: tuple[int, ...]
    entries: dict[Argument, Any]


class GroupPlan(NamedTuple):
    """The transformation that runs, and for each leaf of the parameters what the rules determine, and its group."""

    tx: Any
    names: list[str]
    said: list[Said | None]
    group: list[int | tuple[int, ...] | None]

    def box(self, tree: Any, partial: bool) -> Any:
        """The tree with its leaves in boxes that carry their groups; frozen parameters are hidden."""
        _, leaves, treedef = named_leaves(tree)
        rows = zip(leaves, self.said, self.group, strict=True)
        return treedef.unflatten([_boxed(*row) for row in rows])


def _boxed(x: Any, said: Said | None, group: Any) -> Any:
    if said is None:
        return x
    if said.label == FROZEN:
        return MaskedNode()
    return Boxed(opened(x), carried_role(x), group, carried_split(x))


def plan(rules: Sequence[tuple[Any, Any]], base: Any, tree: Any, partial: bool, first_match: bool) -> GroupPlan:
    """The plan for a tree. `partial` says that parameters may be missing, so that rules may match none; `first_match`
    that of several rules for a parameter only the first counts.
    """
    names, leaves, _ = named_leaves(tree)
    parameters = [_parameter(name, x) for name, x in zip(names, leaves, strict=True)]
    given, base = inherited(base), without_inherited(base)
    rules = [(where, _without_inherited(what)) for where, what in rules]
    check_scalars(base)
    said: list[Said | None] = [None if p is None else Said(BASE, (), {}) for p in parameters]
    for number, (where, what) in enumerate(rules):
        found = [i for i, p in enumerate(parameters) if p is not None and _chooses(where, p, leaves[i])]
        if not found and not partial:
            raise ValueError(f"groups: {described(where)} chooses no parameter{what_instead(where, names)}")
        if first_match:
            before = {i: s.rules[0] for i in found if (s := said[i]) and s.rules}
            if before and len(before) == len(found):
                first = listed(_as_text(rules, n) for n in sorted(set(before.values())))
                raise ValueError(f"groups: {_as_text(rules, number)} is without use: before it comes {first}")
            found = [i for i in found if i not in before]
        entries = what.entries if isinstance(what, Override) and found else ()
        columns = {}
        for argument, value in entries:
            with of_rule(number, where):
                columns[argument] = _column(value, [parameters[i] for i in found])
                _check_range(base, argument, columns[argument])
        for row, i in enumerate(found):
            if any(isinstance(column[row], np.ndarray) for column in columns.values()):
                _check_layers_are_here(names[i], leaves[i])
            new = {argument: column[row] for argument, column in columns.items()}
            said[i] = _joined(rules, said[i], number, new, names[i])
    said = [s and _with_second_rates(base, s) for s in said]
    rows: dict[Any, tuple[int, dict]] = {(): (0, {})}  # the first group has the base's values
    around = [x.group if is_box(x) else None for x in leaves]
    columns = zip(said, parameters, around, strict=True)
    group = [_group_of(s, p, rows, given, number) if s and p else None for s, p, number in columns]
    tx = _transformation(rules, base, [entries for _, entries in rows.values()], names, said)
    if not partial:
        _check_effect(rules, base, tree, said)
    return GroupPlan(tx, names, said, group)


@contextlib.contextmanager
def of_rule(number: int, where: Any) -> Iterator[None]:
    """Errors raised inside name this rule."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"groups: rule {number} ({described(where)}): {error}") from None


def _check_layers_are_here(name: str, leaf: Any) -> None:
    """Raises for a stack whose layers are on several devices, each of which would count its own from 0."""
    split, role = carried_split(leaf), carried_role(leaf)
    if split is None or not split.names or role is None:
        return
    if split.axes is None or any(split.axes[axis] for axis in role.stack):
        raise ValueError(
            f"groups: the layers of {name} are on several devices, between which it is split over "
            f"{listed(split.names)}, and have values that differ: split another axis than that of the layers"
        )


def _check_range(base: Any, argument: Argument, column: list) -> None:
    """Raises for a multiple that lies outside of the argument's range."""
    path, name = argument
    known = value_at(base, path, name)
    multiples = [x.factor if isinstance(x, Times) else x for x in column if isinstance(x, Times | np.ndarray)]
    factors = {
        float(f) for x in multiples for f in (x.reshape(-1) if isinstance(x, np.ndarray) else [x]) if is_number(f)
    }
    for factor in sorted(factors) if is_number(known) else ():
        replaced(base, path, name, known * factor)


def other_transformations(rules: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """The transformations that run beside the base, by label."""
    others = {what.label: what for _, what in rules if what != FROZEN and what.label is not None}
    return {label: what.tx if isinstance(what, OtherRule) else what.variant for label, what in others.items()}


def _parameter(name: str, leaf: Any) -> Parameter | None:
    return None if is_absent(leaf) else Parameter(name, tuple(jnp.shape(opened(leaf))), carried_role(leaf))


def _chooses(where: Any, parameter: Parameter, leaf: Any) -> bool:
    return matches(where, parameter.path, opened(leaf), parameter.role)


def _column(value: Any, parameters: list) -> list:
    """The values of one hyperparameter by a rule, for each of its parameters."""
    if not isinstance(value, Factor):
        return [value] * len(parameters)
    return [x if isinstance(x, np.ndarray) and x.ndim else Times(x) for x in value.of(parameters)]


def _joined(rules: Sequence, before: Any, number: int, new: dict, name: str) -> Said:
    """What the rules determine for a parameter that one more rule chooses; two rules must not contradict each other."""
    what = rules[number][1]
    label = what if what == FROZEN else what.label or BASE
    one, other = _as_text(rules, before.rules[-1] if before.rules else number), _as_text(rules, number)
    if before.rules and (label != BASE or before.label != BASE):
        raise ValueError(f"groups: two rules choose {name}, {one} and {other}; only hyperparameters can be combined")
    for argument in new:
        if argument in before.entries:
            first = next(i for i in before.rules if argument in dict(rules[i][1].entries))
            raise ValueError(
                f"groups: two rules give {name} a {argument[1]}, {_as_text(rules, first)} and {other}; "
                f"choose it in one of them"
            )
    return Said(label, (*before.rules, number), {**before.entries, **new})


def _with_second_rates(base: Any, said: Said) -> Said:
    """A multiple of a recipe's learning rate is one of its other learning rates too, unless a rule says another."""
    implied = {
        (path, other): x
        for (path, name), x in said.entries.items()
        if isinstance(x, Times | np.ndarray)
        for other in second_rates(base, path, name)
    }
    return dataclasses.replace(said, entries=implied | said.entries)


def _check_effect(rules: Sequence, base: Any, tree: Any, said: list[Said | None]) -> None:
    """Raises for a rule with an argument that no stage uses for any of the rule's parameters."""
    names = named_leaves(tree).names
    variants = {BASE: base} | {
        what.label: what.variant for _, what in rules if isinstance(what, Override) and what.label
    }
    here = [s for s in said if s is not None and s.label in variants]
    mine = {label: [s if s is not None and s.label == label else None for s in said] for label in variants}
    used = {
        (s.label, a): users(variants[s.label], a, tree, [x and x.entries for x in mine[s.label]])
        for s in here
        for a in s.entries
    }
    for number, (_, what) in enumerate(rules):
        chosen = [(n, s.label) for n, s in zip(names, said, strict=True) if s is not None and number in s.rules]
        if not isinstance(what, Override) or not chosen:
            continue
        without = []
        for (path, name), value in what.entries:
            others = second_rates(base, path, name)
            counted = [name, *others] if isinstance(value, Factor) else [name]
            if not any(n in used.get((label, (path, x)), ()) for n, label in chosen for x in counted):
                without.append((name, f"; there is {listed(others)} too" if others else ""))
        if what.label is not None:
            own = [x and x.entries for x in mine[what.label]]
            without += [(name, "") for name in options_without_use(base, what.variant, tree, own)]
        for name, meant in without:
            raise ValueError(
                f"groups: {_as_text(rules, number)}: {name} has no effect on the parameters that the rule chooses, "
                f"{listed(n for n, _ in chosen)}: no stage that sees them uses it{meant}"
            )


def _as_text(rules: Sequence, number: int) -> str:
    return f"rule {number} ({described(rules[number][0])})"


def _without_inherited(what: Any) -> Any:
    return what._replace(variant=without_inherited(what.variant)) if isinstance(what, Override) else what


def _group_of(said: Said, parameter: Parameter, rows: dict, given: dict, around: Any) -> int | tuple[int, ...]:
    """The number of the group with these entries, perhaps a new one; a tuple of them for a stack that differs.

    `around` is the parameter's group in the groups around these ones, which have `given` it entries.
    """

    def row(entries: dict, number: int | None) -> int:
        outer = {} if number is None else {a: x.entries[number] for a, x in given.items()}
        both = {a: over(x, entries.get(a)) for a, x in outer.items()}
        return _row(entries | {a: x for a, x in both.items() if x is not None}, rows)

    if not any(isinstance(x, np.ndarray) for x in said.entries.values()) and not isinstance(around, tuple):
        return row(said.entries, around)
    sizes = [parameter.shape[axis] for axis in parameter.stack]

    def of_layer(x: Any, i: int) -> Any:
        return Times(np.broadcast_to(x, sizes).reshape(-1)[i]) if isinstance(x, np.ndarray) else x

    layers = range(int(np.prod(sizes)))
    numbers = around if isinstance(around, tuple) else [around] * len(layers)
    return tuple(row({a: of_layer(x, i) for a, x in said.entries.items()}, numbers[i]) for i in layers)


def _row(entries: dict, rows: dict) -> int:
    keys = [(a, ("times", freeze(x.factor)) if isinstance(x, Times) else freeze(x)) for a, x in entries.items()]
    return rows.setdefault(tuple(sorted(keys, key=repr)), (len(rows), entries))[0]


def _transformation(rules: Sequence, base: Any, entries: list[dict], names: list[str], said: list) -> Any:
    """The base with an entry for each group where groups differ, and the other transformations beside it."""
    arguments = dict.fromkeys(argument for row in entries for argument in row)

    def merged(tx: Any) -> Any:
        for path, name in arguments:
            if value_at(tx, path, name) is not None:  # else a variant whose groups do not use it
                tx = with_entries(tx, path, name, [row.get((path, name)) for row in entries])
        check_reach(tx)
        return tx

    others = other_transformations(rules)
    if not others:
        return merged(base)
    variants = {what.label for _, what in rules if isinstance(what, Override)}
    txs = {label: merged(tx) if label in variants else tx for label, tx in others.items()}
    label_of = {name: s.label for name, s in zip(names, said, strict=True) if s is not None}

    @of_boxes
    def labels(tree: Any) -> Any:
        found, _, treedef = named_leaves(tree)
        return treedef.unflatten([label_of.get(name) for name in found])

    return partition({BASE: merged(base), **txs}, labels)
