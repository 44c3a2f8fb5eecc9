# SPDX-License-Identifier: Apache-2.0
"""The dtype policy: arithmetic is in at least float32, stored arrays keep their own dtype."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def real_dtype(dtype: Any) -> np.dtype:
    """The dtype of the real part."""
    return jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.dtype(dtype)


_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


@functools.lru_cache
def _is_double(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact) and real_dtype(dtype) == _DOUBLE


def compute_dtype(*trees: Any) -> np.dtype:
    """The real dtype in which to compute with these arrays: the widest floating dtype among them, at least float32."""
    return _DOUBLE if any([_is_double(x.dtype) for x in jax.tree.leaves(trees)]) else _SINGLE


def complex_dtype(dtype: Any) -> np.dtype:
    """The complex dtype whose parts are at least this wide."""
    return np.dtype(np.complex128 if jnp.dtype(dtype) == np.float64 else np.complex64)


def widened_dtype(*trees: Any) -> np.dtype:
    """The dtype of these arrays where one computes with them: `compute_dtype`, complex if one of them is."""
    is_complex = any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in jax.tree.leaves(trees))
    return complex_dtype(compute_dtype(trees)) if is_complex else compute_dtype(trees)


def widen(tree: Any, dtype: np.dtype | None = None) -> Any:
    """Casts the numbers in a tree to the real `dtype`, complex ones to its complex counterpart.

    By default the dtype is the one in which to compute with all of them.
    """
    if dtype is None:
        tree = jax.tree.map(jnp.asarray, tree)
        dtype = compute_dtype(tree)
    leaves, treedef = jax.tree.flatten(tree)
    # Without a call for what stays as it is: this runs for each rule and each shape.
    stay = [getattr(x, "dtype", None) == dtype and getattr(x, "weak_type", None) is False for x in leaves]
    return treedef.unflatten([x if as_is else cast(x, dtype) for x, as_is in zip(leaves, stay, strict=True)])


def cast(x: Any, dtype: np.dtype) -> jax.Array:
    """A strongly typed array of the real `dtype`, of its complex counterpart for complex numbers."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    wanted = complex_dtype(dtype) if jnp.iscomplexobj(x) else dtype
    return x if x.dtype == wanted and not x.weak_type else x.astype(wanted)


def widen_floats(tree: Any, dtype: Any) -> Any:
    """`widen` that leaves booleans, whole numbers and random keys as they are."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([cast(x, dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in leaves])


def ending(new: Any, old: jax.Array, dtype: Any) -> Any:
    """`new`, to be stored in float16 after `old`, and rounded towards 0 where it is smaller than `old` and subnormal.

    To the nearest, 0.9 times the smallest float16 is that number again, and an average would never end.
    """
    if dtype != jnp.float16:
        return new
    spacing, smallest = 2.0**-24, 2.0**-14
    is_ending = (jnp.abs(new) < smallest) & (jnp.abs(new) < jnp.abs(old))
    return jnp.where(is_ending, jnp.trunc(new / spacing) * spacing, new)


def promotion(*trees: Any) -> contextlib.AbstractContextManager:
    """The dtype promotion under which a rule runs: strict promotion, if the user set it, forbids complex times real."""
    is_complex = any([x.dtype.kind == "c" for x in jax.tree.leaves(trees)])
    return jax.numpy_dtype_promotion("standard") if is_complex else contextlib.nullcontext()
