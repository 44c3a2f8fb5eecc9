# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters that differ between groups of parameters: arrays with an entry for each group.

Which entry is a parameter's is written on its box. The entries are arguments of the compiled rule, so that the number
of groups changes neither how often a rule is traced nor how many stages run. The exception are numbers in [0, 1], which
rules subtract from 1: in float32, 1 - 0.999 is off by 5e-5. They are constants of a compiled rule of their own.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._kernels import Rule, RuleSource
from gradtx.core._roles import is_absent, is_box
from gradtx.core._selectors import named_leaves
from gradtx.core._stacks import Stacked, stack_axes
from gradtx.core._types import Params


class ByGroup:
    """A tree of arrays whose first axis numbers the groups."""

    def __init__(self, tree: Any):
        self.tree = tree

    def __bool__(self) -> bool:
        return bool(jax.tree.leaves(self.tree))

    @property
    def size(self) -> int:
        return len(jax.tree.leaves(self.tree)[0]) if self else 0

    def at(self, group: int) -> Any:
        """The entries of a group."""
        return jax.tree.unflatten(jax.tree.structure(self.tree), [row[group] for row in self.rows])

    @functools.cached_property
    def rows(self) -> list[list]:
        """The entries of each array, taken apart once and not once for each parameter."""
        return [x.tolist() if isinstance(x, np.ndarray) else list(x) for x in jax.tree.leaves(self.tree)]

    def of(self, leaf: Any) -> Any:
        """The entries for a parameter; for a stack of which each parameter has a group of its own, `Stacked` ones."""
        if not self:
            return self.tree
        group = leaf.group
        if isinstance(group, int):
            return self.at(group)
        shape = jnp.shape(leaf.value)
        stack = stack_axes(leaf.role, len(shape))
        index = np.reshape(group, [shape[axis] for axis in stack])
        return jax.tree.map(lambda x: Stacked(x[index], tuple(range(len(stack)))), self.tree)


class Groups:
    """How a rule runs on parameters of which each group has hyperparameters of its own."""

    def __init__(self, source: RuleSource, same: dict[str, Any], varying: ByGroup, leaves: list):
        values = varying.tree
        one_each = all(isinstance(leaf.group, int) for leaf in leaves)
        # No constants where a stack has parameters of several groups: it gets the entries of these as arrays, and what
        # it shares with other leaves must be made of arrays, too.
        fixed = [n for n in values if one_each and n in source.constant and isinstance(values[n], np.ndarray)]
        self.source, self.same, self.varying, self.leaves = source, same, varying, leaves
        self.arguments = ByGroup({n: x for n, x in values.items() if n not in fixed})
        self.constants = [tuple((n, values[n][i].item()) for n in fixed) for i in range(varying.size)]

    @property
    def runs(self) -> list[tuple[RuleSource, dict[str, Any]]]:
        """The rule of each parameter, and the hyperparameters that are arguments of its compiled functions."""
        return [
            self._run(self.constants[leaf.group] if isinstance(leaf.group, int) else (), self.arguments.of(leaf))
            for leaf in self.leaves
        ]

    def shared(self, rule: Rule, *arguments: Any) -> tuple[list[tuple], None]:
        """What each parameter gets of what is computed once for its group; and no memory, which would be of all."""
        check_memory(rule, self.varying)
        runs = [self._run(constants, self.arguments.at(i)) for i, constants in enumerate(self.constants)]
        found = [source.kernels.shared(values, *arguments)[0] for source, values in runs]
        entries = ByGroup(jax.tree.map(lambda *xs: jnp.stack(xs), *found))
        return [() if entries.tree is None else (entries.of(leaf),) for leaf in self.leaves], None

    def _run(self, constants: tuple, own: dict[str, Any]) -> tuple[RuleSource, dict[str, Any]]:
        return self.source.fixed(constants), self.same | own


def is_grouped(leaf: Any) -> bool:
    return is_box(leaf) and leaf.group is not None


class Began(NamedTuple):
    """That `init` of a rule ran for the parameters of these paths, and whether groups of them have other numbers."""

    source: RuleSource
    names: list[str]
    differs: bool


_began: contextvars.ContextVar[list[Began] | None] = contextvars.ContextVar("began", default=None)


@contextlib.contextmanager
def noting() -> Iterator[list[Began]]:
    """Collects for which parameters `init` of which rules runs meanwhile.

    Any number of masks, labels and wrappers may lie between the one who asks and the rules, so it is nobody's argument.
    """
    found: list[Began] = []
    token = _began.set(found)
    try:
        yield found
    finally:
        _began.reset(token)


def note_began(source: RuleSource, params: Params, differs: bool) -> None:
    if (found := _began.get()) is not None:
        names, leaves, _ = named_leaves(params)
        present = [name for name, leaf in zip(names, leaves, strict=True) if not is_absent(leaf)]
        found.append(Began(source, present, differs))


def by_group(values: dict[str, Any], leaves: list) -> tuple[dict[str, Any], ByGroup]:
    """The values that are the same for all of these leaves, and those that are not."""
    if not all(map(is_grouped, leaves)):
        return values, ByGroup({})
    varying = {n: v for n, v in values.items() if jnp.ndim(v) == 1}
    return {n: v for n, v in values.items() if n not in varying}, ByGroup(varying)


def in_groups(source: RuleSource, values: dict[str, Any], leaves: list) -> tuple[dict[str, Any], Groups | None]:
    """The values that are the same for all of these leaves, and how to run on those that have values of their own."""
    same, varying = by_group(values, leaves)
    return same, Groups(source, same, varying, leaves) if varying else None


def check_memory(rule: Rule, varying: ByGroup) -> None:
    if varying and rule.memory is not None:
        raise ValueError(
            f"{rule.name}: {', '.join(varying.tree)} cannot differ between groups of parameters: it goes into numbers "
            f"that the rule keeps for all of them, {', '.join(rule.memory())}"
        )
