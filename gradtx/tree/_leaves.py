# SPDX-License-Identifier: Apache-2.0
"""Functions of arrays, leaf by leaf over one or more trees."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._trees import align_leaves, check_shapes, is_none, paths


def common_dtype(*xs: Any) -> np.dtype:
    """The dtype of the sum of these by NumPy's rules, whatever promotion the user allows; Python numbers fit in."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*xs)


def whole(dtype: Any) -> np.dtype:
    """The dtype in which whole numbers are added and multiplied, lest they wrap: int32 for those of fewer bits."""
    return jnp.dtype(jnp.int32 if jnp.dtype(dtype).itemsize < 4 else dtype)


def computed(f: Callable[..., Any], *xs: Any) -> jax.Array:
    """`f` of arrays and numbers, in at least float32 and rounded once to their common dtype; of integers in `whole`."""
    dtype = common_dtype(*xs)
    if not jnp.issubdtype(dtype, jnp.inexact):
        dtype = whole(dtype) if jnp.issubdtype(dtype, jnp.integer) else dtype
        return f(*(jnp.asarray(x, dtype) for x in xs))
    arrays = widen(xs, compute_dtype(jnp.zeros([], dtype)))
    with promotion(*arrays):
        return f(*arrays).astype(dtype)


def aligned(where: str, names: tuple[str, ...], trees: tuple) -> tuple[Any, list[tuple]]:
    """The structure of the first tree, with None as a leaf, and for each of its leaves the tuple of all trees' leaves.

    Raises:
      ValueError: if the trees do not match.
    """
    first, treedef = jax.tree.flatten(trees[0], is_leaf=is_none)
    others = [align_leaves(treedef, x, where, n, trees[0], names[0]) for n, x in zip(names[1:], trees[1:], strict=True)]
    return treedef, list(zip(first, *others, strict=True))


def combined(where: str, f: Callable[..., Any], names: tuple[str, ...], *trees: Any) -> Any:
    """`f` of the leaves of all trees, in the structure of the first.

    Where the first tree is None, so is the result; other trees are left out where they are None, and the leaf of the
    first stays if all are. A leaf may be a scalar where another is an array; nothing else is broadcast.
    """
    treedef, rows = aligned(where, names, trees)
    new = []
    for i, (first, *others) in enumerate(rows):
        given = [x for x in others if x is not None]
        if first is not None:
            _check_shapes(where, names, trees, i, (first, *others))
            first = f(first, *given) if given else first
        new.append(first)
    return jax.tree.unflatten(treedef, new)


def _check_shapes(where: str, names: tuple[str, ...], trees: tuple, i: int, row: tuple) -> None:
    shaped = [(n, jnp.shape(x)) for n, x in zip(names, row, strict=True) if x is not None and jnp.ndim(x) > 0]
    for name, shape in shaped[1:]:
        if shape != shaped[0][1]:
            raise ValueError(
                f"{where}: at {paths(trees[0])[i]}: {shaped[0][0]} has shape {shaped[0][1]}, {name} has shape {shape}; "
                f"nothing but scalars is broadcast"
            )


def kept(where: str, names: tuple[str, str], f: Callable[..., Any], new: Any, old: Any) -> Any:
    """`f(new, old)` for each pair of leaves, in the dtype of `old`; the old leaf where one of the two is None."""
    olds, treedef = jax.tree.flatten(old, is_leaf=is_none)
    news = align_leaves(treedef, new, where, names[0], old, names[1])
    held = [None if o is None else n for n, o in zip(news, olds, strict=True)]
    check_shapes(where, names[0].removesuffix("s").replace("_", " "), old, held, olds, may_be_complex=True)

    def leaf(n: Any, o: Any) -> Any:
        if n is None:
            return o
        o = jnp.asarray(o)
        return f(jnp.asarray(n), o).astype(o.dtype)

    return jax.tree.unflatten(treedef, list(map(leaf, held, olds)))


def each(f: Callable[..., Any], tree: Any) -> Any:
    """`f` of each leaf, which is made an array first."""
    return jax.tree.map(lambda x: f(jnp.asarray(x)), tree)
