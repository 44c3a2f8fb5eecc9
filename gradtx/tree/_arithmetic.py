# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on trees: sums, products and scaling, leaf by leaf.

Computed in at least float32 and rounded once to the dtype that NumPy's rules give; whole numbers stay whole and are at
least 32 bits wide, as sums and products of int8 do not fit in int8. Where the first tree is None, so is the result;
where another tree is None, the leaf of the first stays. A leaf of one tree may be a scalar; nothing else is broadcast:
leaves of other shapes raise a `ValueError` with the path.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import Mask, RealTree, Scalar, Tree
from gradtx.core._ranges import Bound
from gradtx.tree._leaves import combined, common_dtype, computed, each

_XY = ("tree_x", "tree_y")


@checked
def add(tree_x: Tree, tree_y: Tree, *other_trees: Tree) -> Any:
    """x + y + ..., leaf by leaf.

    Args:
      other_trees: further trees to add, like `tree_x`.
    """
    names = (*_XY, *(f"other_trees[{i}]" for i in range(len(other_trees))))

    def total(*xs: Any) -> jax.Array:
        return computed(lambda first, *others: sum(others, first), *xs)

    return combined("add", total, names, tree_x, tree_y, *other_trees)


@checked
def sub(tree_x: Tree, tree_y: Tree) -> Any:
    """x - y, leaf by leaf."""
    return combined("sub", lambda x, y: computed(operator.sub, x, y), _XY, tree_x, tree_y)


@checked
def mul(tree_x: Tree, tree_y: Tree) -> Any:
    """x * y, leaf by leaf."""
    return combined("mul", lambda x, y: computed(operator.mul, x, y), _XY, tree_x, tree_y)


@checked
def div(tree_x: Tree, tree_y: Tree) -> Any:
    """x / y, leaf by leaf; whole numbers give floats."""

    def quotient(x: Any, y: Any) -> jax.Array:
        x, y = (jnp.asarray(z, None if _is_inexact(z) else float) for z in (x, y))
        return computed(operator.truediv, x, y)

    return combined("div", quotient, _XY, tree_x, tree_y)


@checked
def scale(scalar: Scalar, tree: Tree) -> Any:
    """scalar * x for each leaf x.

    Args:
      scalar: one number for all leaves, which may be traced.
    """
    return jax.tree.map(lambda x: computed(operator.mul, scalar, x), tree)


@checked
def add_scale(tree_x: Tree, scalar: Scalar, tree_y: Tree) -> Any:
    """x + scalar * y, leaf by leaf.

    Args:
      scalar: one number for all leaves, which may be traced.
    """
    return combined("add_scale", lambda x, y: computed(lambda a, s, b: a + s * b, x, scalar, y), _XY, tree_x, tree_y)


@checked
def clip(tree: RealTree, min_value: Bound | None = None, max_value: Bound | None = None) -> Any:
    """min(max(x, min_value), max_value) for each leaf x, which keeps its dtype.

    Args:
      min_value, max_value: numbers for all leaves; None for no limit.
    """

    def leaf(x: jax.Array) -> jax.Array:
        low, high = (None if limit is None else jnp.asarray(limit, x.dtype) for limit in (min_value, max_value))
        return jnp.clip(x, low, high)

    return each(leaf, tree)


@checked
def conj(tree: Tree) -> Any:
    """The complex conjugate of x."""
    return each(jnp.conj, tree)


@checked
def real(tree: Tree) -> Any:
    """The real part of x."""
    return each(jnp.real, tree)


@checked
def where(condition: Mask, tree_x: Tree, tree_y: Tree) -> Any:
    """x where the condition is True, else y.

    Elements that are not chosen do not affect the result, even if they are NaN.

    Args:
      condition: a boolean scalar, which chooses one of the trees, or an array that broadcasts to all leaves.

    Raises:
      ValueError: if the trees or the shapes differ, or only one of two leaves is None.
    """

    def leaf(x: Any, y: Any) -> jax.Array:
        return computed(lambda a, b: jnp.where(condition, a, b), x, y).astype(common_dtype(x, y))

    empty = [[x is None for x in jax.tree.leaves(t, is_leaf=lambda x: x is None)] for t in (tree_x, tree_y)]
    if empty[0] != empty[1] and len(empty[0]) == len(empty[1]):
        raise ValueError("where: tree_x and tree_y must be None at the same places, or there is nothing to choose from")
    return combined("where", leaf, _XY, tree_x, tree_y)


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)
