# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters that differ between groups of parameters: arrays with an entry for each group.

Which entry is a parameter's is written on its box. The entries are arguments of the compiled rule, so that the number
of groups changes neither how often a rule is traced nor how many stages run.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.roles import is_box
from gradtx.core.stacks import Stacked, stack_axes


class ByGroup:
    """A tree of arrays whose first axis numbers the groups."""

    def __init__(self, tree: Any):
        self.tree = tree

    @functools.cached_property
    def rows(self) -> list[list]:
        """The entries of each array, taken apart once and not once for each parameter."""
        return [x.tolist() if isinstance(x, np.ndarray) else list(x) for x in jax.tree.leaves(self.tree)]

    def of(self, leaf: Any) -> Any:
        """The entries for a parameter; for a stack of which each parameter has a group of its own, `Stacked` ones."""
        if not self.tree:
            return self.tree
        group = leaf.group
        if isinstance(group, int):
            return jax.tree.unflatten(jax.tree.structure(self.tree), [row[group] for row in self.rows])
        shape = jnp.shape(leaf.value)
        stack = stack_axes(leaf.role, len(shape))
        index = np.reshape(group, [shape[axis] for axis in stack])
        return jax.tree.map(lambda x: Stacked(x[index], tuple(range(len(stack)))), self.tree)


def is_grouped(leaf: Any) -> bool:
    return is_box(leaf) and leaf.group is not None


def by_group(values: dict[str, Any], leaves: list) -> tuple[dict[str, Any], ByGroup]:
    """The values that are the same for all of these leaves, and those that are not."""
    if not leaves or not all(map(is_grouped, leaves)):
        return values, ByGroup({})
    varying = {n: v for n, v in values.items() if jnp.ndim(v) == 1}
    return {n: v for n, v in values.items() if n not in varying}, ByGroup(varying)
