# SPDX-License-Identifier: Apache-2.0
"""Trees like other trees: filled with one value, of another dtype, of random numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._checked import checked
from gradtx.core._dtypes import complex_dtype
from gradtx.core._kinds import AnyDType, ArrayLike, Key, Shape, Tree
from gradtx.tree._leaves import aligned, each


@checked
def zeros_like(tree: Tree, dtype: AnyDType | None = None) -> Any:
    """Zeros in the shapes and shardings of the leaves.

    Args:
      dtype: None for that of each leaf.
    """
    return each(lambda x: jnp.zeros_like(x, dtype), tree)


@checked
def ones_like(tree: Tree, dtype: AnyDType | None = None) -> Any:
    """Ones in the shapes and shardings of the leaves.

    Args:
      dtype: None for that of each leaf.
    """
    return each(lambda x: jnp.ones_like(x, dtype), tree)


@checked
def full_like(tree: Tree, fill_value: ArrayLike, dtype: AnyDType | None = None) -> Any:
    """`fill_value` in the shapes and shardings of the leaves.

    Args:
      fill_value: a scalar, or an array that broadcasts to all leaves.
      dtype: None for that of each leaf.

    Raises:
      ValueError: if a leaf of whole numbers cannot hold the value.
    """

    def leaf(path: Any, x: Any) -> jax.Array:
        x = jnp.asarray(x)
        wanted = jnp.dtype(x.dtype if dtype is None else dtype)
        if not (isinstance(fill_value, Tracer) or jnp.issubdtype(wanted, jnp.inexact)):
            _check_fits(path, np.asarray(fill_value), wanted)
        return jnp.full_like(x, fill_value, dtype)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def _check_fits(path: Any, value: np.ndarray, dtype: np.dtype) -> None:
    with np.errstate(all="ignore"):
        fits = np.all(value.astype(dtype) == value)
    if not fits:
        where = jax.tree_util.keystr(path) or "the root"
        raise ValueError(
            f"full_like: fill_value must be a number that {dtype.name}, the dtype at {where}, can hold, got {value}; "
            f"for another dtype give dtype="
        )


@checked
def cast(tree: Tree, dtype: AnyDType | None) -> Any:
    """The leaves in another dtype.

    Complex numbers keep their imaginary parts, in the complex counterpart of a real dtype; `real` drops them. Random
    keys are unchanged.

    Args:
      dtype: None changes nothing.
    """
    return tree if dtype is None else jax.tree.map(lambda x: _cast(x, dtype), tree)


@checked
def cast_like(tree: Tree, other_tree: Tree) -> Any:
    """Each leaf in the dtype of the corresponding leaf of another tree, by `cast`.

    Args:
      other_tree: a tree like `tree`; where it is None, the leaf keeps its dtype.

    Raises:
      ValueError: if the trees do not match.
    """
    treedef, rows = aligned("cast_like", ("tree", "other_tree"), (tree, other_tree))
    new = [x if x is None or y is None else _cast(x, jnp.result_type(y)) for x, y in rows]
    return jax.tree.unflatten(treedef, new)


def _cast(x: Any, dtype: Any) -> jax.Array:
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        dtype = complex_dtype(dtype)
    return x.astype(dtype)


@checked
def batch_shape(tree: Tree, shape: Shape = ()) -> Any:
    """Each leaf repeated along new leading axes.

    Args:
      shape: the sizes of the new axes; () adds none.
    """
    return each(lambda x: jnp.broadcast_to(x, (*shape, *x.shape)), tree)


@checked
def split_key_like(rng_key: Key, target_tree: Any) -> Any:
    """A random key for each leaf.

    Args:
      rng_key: the key that is split, in the order of the leaves.
      target_tree: the tree whose structure the keys get.
    """
    leaves, treedef = jax.tree.flatten(target_tree)
    return jax.tree.unflatten(treedef, list(jax.random.split(rng_key, len(leaves))) if leaves else [])


@checked
def random_like(
    rng_key: Key, target_tree: Tree, sampler: Callable[..., Any] = jax.random.normal, dtype: AnyDType | None = None
) -> Any:
    """Random numbers in the shapes of a tree, each leaf with its own key from `split_key_like`.

    Args:
      rng_key: the key that is split.
      target_tree: the tree whose structure and shapes the result gets.
      sampler: (key, shape, dtype) -> array, such as `jax.random.rademacher`.
      dtype: None for that of each leaf.
    """
    keys = split_key_like(rng_key, target_tree)
    return jax.tree.map(
        lambda x, key: sampler(key, jnp.shape(x), jnp.result_type(x) if dtype is None else dtype), target_tree, keys
    )


def unwrap_random_key_data(input_tree: Any) -> Any:
    """The tree with typed random keys replaced by their key data, which every checkpointer can write.

    Args:
      input_tree: any tree; leaves that are no keys stay as they are.
    """

    def leaf(x: Any) -> Any:
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.tree.map(leaf, input_tree)
