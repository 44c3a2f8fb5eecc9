# SPDX-License-Identifier: Apache-2.0
"""Reductions of whole trees: norms, sums, extremes. Computed in at least float32; None has no elements."""

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._kinds import Order, RealTree, Tree
from gradtx.core._operations import sum_of
from gradtx.core._over_devices import Names, devices, reduced_over, sum_over
from gradtx.core._ranges import NonNegative
from gradtx.core._rescaling import added_up, divided, in_range_over, knowing, known_squares
from gradtx.core._roles import by_names, is_full_box, names_of, names_of_leaves, opened
from gradtx.core._trees import is_none
from gradtx.numerics._safe import abs_sq, norm_of
from gradtx.tree._leaves import aligned, common_dtype, whole

_NORMS = "None, 1, 2, inf or 'inf'"
_HANDLERS = (None, "promote", "highest", "lowest")


@checked
def global_norm(updates: Tree) -> jax.Array:
    """sqrt(Σ |x|²) over all elements of all leaves, in at least float32; 0 for an empty tree."""
    return norm_of(_squares_in_range(_by_names(updates)))


@contextlib.contextmanager
def norm_known(updates: Any) -> Iterator[jax.Array]:
    """The `global_norm`, which meanwhile nobody computes again of the same arrays."""
    parts = _by_names(updates)
    found = _squares_in_range(parts)
    with knowing(list(itertools.chain(*parts.values())), found):
        yield norm_of(found)


def _squares_in_range(parts: dict[Names, list]) -> tuple[jax.Array, jax.Array]:
    dtype = compute_dtype(parts)
    known = known_squares(list(itertools.chain(*parts.values())), dtype)
    if known is not None:
        return known

    def squares(leaves: list, scale: jax.Array | None = None) -> jax.Array:
        return _squares_of(leaves if scale is None else [divided(x, scale) for x in leaves], dtype)

    return in_range_over(parts, squares, dtype)


@checked
def norm(tree: Tree, ord: Order | None = None, squared: bool = False) -> jax.Array:
    """A norm of all elements together, in at least float32; 0 for an empty tree.

    Args:
      ord: None or 2 for sqrt(Σ |x|²), which is `global_norm`, 1 for Σ |x|, inf for max |x|.
      squared: whether to return the square of the norm.
    """
    if ord is None or ord == 2:
        return _sum_of_squares(tree) if squared else global_norm(tree)
    if ord != 1 and ord not in (math.inf, "inf"):
        raise ValueError(f"norm: ord must be {_NORMS}, got {ord!r}")
    parts = _wide_by_names(tree)
    dtype = compute_dtype(parts)
    reduce, across = (jnp.sum, jax.lax.psum) if ord == 1 else (jnp.max, jax.lax.pmax)
    # Of -128 there is no absolute value in int8.
    own = {n: reduce(jnp.stack([reduce(jnp.abs(widen(x, dtype))) for x in xs])) for n, xs in parts.items()}
    found = reduced_over(own, reduce, across) if own else jnp.zeros([], dtype)
    return found * found if squared else found


def _by_names(tree: Any) -> dict[Names, list]:
    """The leaves as arrays, by the mesh axes between whose devices they are split."""
    found = by_names(jax.tree.leaves(tree, is_leaf=is_full_box))
    return {names: [jnp.asarray(x) for x in leaves] for names, leaves in found.items()}


def _sum_of_squares(tree: Any) -> jax.Array:
    parts = _by_names(tree)
    dtype = compute_dtype(parts)
    return sum_over({names: _squares_of(leaves, dtype) for names, leaves in parts.items()})


def _squares_of(leaves: list, dtype: np.dtype) -> jax.Array:
    squares = [sum_of(abs_sq(widen(x, dtype))) for x in leaves]
    return added_up(squares) if squares else jnp.zeros([], dtype)


@checked
def vdot(tree_x: Tree, tree_y: Tree) -> jax.Array:
    """Σ conj(x) y over all elements of all leaves; pairs of leaves of which one is None add nothing.

    Computed in at least float32, or in integers of at least 32 bits if all leaves are whole numbers.

    Raises:
      ValueError: if the trees or the sizes of leaves differ.
    """
    _, rows = aligned("vdot", ("tree_x", "tree_y"), (tree_x, tree_y))
    products, names = [], []
    for (x, y), over in zip(rows, names_of_leaves(tree_x), strict=True):
        if x is None or y is None:
            continue
        if jnp.shape(x) != jnp.shape(y):
            raise ValueError(f"vdot: tree_x has a leaf of shape {jnp.shape(x)} where tree_y has {jnp.shape(y)}")
        x, y = _wide_together(x, y)
        with promotion(x, y):
            products.append(jnp.vdot(x, y, precision="highest"))
            names.append(over)
    return _total(products, names)


@checked
def sum(tree: Tree, associative_reduction: bool = False) -> jax.Array:
    """Σ x over all elements of all leaves, in at least float32; integers if all leaves are, 0 for an empty tree.

    Args:
      associative_reduction: whether to add the sums of the leaves in pairs, for trees of very many leaves.
    """
    sums = [jnp.sum(x) for x in _wide(tree)]
    names = [
        n for n, x in zip(names_of_leaves(tree), jax.tree.leaves(tree, is_leaf=is_none), strict=True) if x is not None
    ]
    if not associative_reduction or len(sums) < 2 or any(names):
        return _total(sums, names)
    dtype = common_dtype(*sums)
    return jax.tree.reduce_associative(jnp.add, [x.astype(dtype) for x in sums])


@checked
def max(tree: RealTree) -> jax.Array:
    """The largest element of all leaves, in at least float32; -inf for an empty tree."""
    return _extreme(jnp.max, jax.lax.pmax, tree, -jnp.inf)


@checked
def min(tree: RealTree) -> jax.Array:
    """The smallest element of all leaves, in at least float32; inf for an empty tree."""
    return _extreme(jnp.min, jax.lax.pmin, tree, jnp.inf)


def _extreme(reduce: Any, across: Any, tree: Any, of_nothing: float) -> jax.Array:
    parts = _wide_by_names(tree)
    dtype = compute_dtype(parts)
    own = {n: reduce(jnp.stack([reduce(x).astype(dtype) for x in xs])) for n, xs in parts.items()}
    return reduced_over(own, reduce, across) if own else jnp.asarray(of_nothing, dtype)


def _wide_by_names(tree: Any) -> dict[Names, list]:
    """As `_by_names`, of leaves that have elements, as `_wide` has them."""
    parts = {names: [x for x in _wide(leaves) if x.size] for names, leaves in _by_names(tree).items()}
    return {names: leaves for names, leaves in parts.items() if leaves}


@checked
def size(tree: Tree) -> int:
    """The number of elements of all leaves."""
    leaves = jax.tree.leaves(tree, is_leaf=is_full_box)
    return int(np.sum([jnp.size(opened(x)) * devices(names_of(x)) for x in leaves], dtype=np.int64))


@checked
def allclose(
    a: Tree, b: Tree, rtol: NonNegative = 1e-5, atol: NonNegative = 1e-8, equal_nan: bool = False
) -> jax.Array:
    """Whether |a - b| <= atol + rtol |b| for all elements; False if shapes differ, or one of two leaves is None.

    Args:
      a, b: trees of one structure.
      rtol, atol: the relative and the absolute tolerance, at least 0.
      equal_nan: whether NaN equals NaN.

    Raises:
      ValueError: if the trees do not match.
    """
    same = jnp.ones([], bool)
    for x, y in aligned("allclose", ("a", "b"), (a, b))[1]:
        if x is None and y is None:
            continue
        if x is None or y is None or jnp.shape(x) != jnp.shape(y):
            same = jnp.zeros([], bool)
        else:
            x, y = _wide_together(x, y)
            with jax.numpy_dtype_promotion("standard"):
                same = same & jnp.allclose(x, y, rtol, atol, equal_nan)
    return same


@checked
def dtype(tree: Tree, mixed_dtype_handler: str | None = None) -> np.dtype:
    """The dtype of all leaves; the default float for an empty tree.

    Args:
      mixed_dtype_handler: what to return for several dtypes. None raises an error, "promote" returns the dtype that
        holds them all, "highest" the one among them to which all others can be promoted, "lowest" the one among them
        that can be promoted to all others.

    Raises:
      ValueError: for several dtypes without a handler, or if none of them is the highest or lowest, as of bfloat16 and
        float16.
    """
    if mixed_dtype_handler not in _HANDLERS:
        raise ValueError(f"dtype: mixed_dtype_handler must be one of {_HANDLERS}, got {mixed_dtype_handler!r}")
    at = {jnp.result_type(x): jax.tree_util.keystr(k) for k, x in jax.tree_util.tree_leaves_with_path(tree)}
    found = sorted(at, key=str)
    if len(found) < 2:
        return found[0] if found else jnp.result_type(float)
    if mixed_dtype_handler is None:
        shown = ", ".join(f"{d.name} at {at[d] or 'the root'}" for d in found)
        raise ValueError(f"dtype: the leaves must have one dtype, got {shown}; or say mixed_dtype_handler='promote'")
    if mixed_dtype_handler == "promote":
        return common_dtype(*found)
    holds_all = [d for d in found if all(common_dtype(d, x) == d for x in found)]
    held_by_all = [d for d in found if all(common_dtype(d, x) == x for x in found)]
    chosen = holds_all if mixed_dtype_handler == "highest" else held_by_all
    if not chosen:
        shown = ", ".join(d.name for d in found)
        raise ValueError(f"dtype: none of {shown} is the {mixed_dtype_handler}: they are not promoted to each other")
    return chosen[0]


def _wide(tree: Any) -> list[jax.Array]:
    """The leaves as arrays of at least float32; integers as they are."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    return [widen(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in leaves]


def _wide_together(x: Any, y: Any) -> tuple[jax.Array, jax.Array]:
    dtype = common_dtype(x, y)
    if jnp.issubdtype(dtype, jnp.inexact):
        return widen((x, y), compute_dtype(jnp.zeros([], dtype)))
    return jnp.asarray(x, whole(dtype)), jnp.asarray(y, whole(dtype))


def _total(sums: list, names: list[Names]) -> jax.Array:
    if not sums:
        return jnp.zeros([], jnp.result_type(float))
    dtype, parts = common_dtype(*sums), {}
    for x, over in zip(sums, names, strict=True):
        parts.setdefault(over, []).append(x.astype(dtype))
    return sum_over({over: jnp.sum(jnp.stack(xs)) for over, xs in parts.items()})
