# SPDX-License-Identifier: Apache-2.0
"""Comparisons of trees whose errors name the path and what was found there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._sentences import listed
from gradtx.core._trees import paths, show_path


class Broken(AssertionError):
    """The failure of a clause; `check_contract` adds the names of the transformation and the clause."""


class NotApplicable(Exception):
    """Raised by a clause that says nothing of a transformation, with the reason."""


def require(holds: Any, message: str) -> None:
    if not holds:
        raise Broken(message)


def leaves_with_paths(tree: Any) -> list[tuple[str, Any]]:
    return [(show_path(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def type_name(leaf: Any) -> str:
    """Shape, dtype and weak type of a leaf as one word."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        weak, shape, dtype = leaf.weak_type, leaf.shape, leaf.dtype
    else:
        try:
            aval = jax.typeof(leaf)
        except TypeError:
            return f"{type(leaf).__name__}, which is not an array"
        weak, shape, dtype = getattr(aval, "weak_type", False), jnp.shape(leaf), aval.dtype
    return f"{dtype}[{','.join(map(str, shape))}]{' (weak type)' if weak else ''}"


def same_structure(what: str, have: Any, wanted: str, want: Any) -> None:
    if jax.tree.structure(have) == jax.tree.structure(want):
        return
    have_paths, want_paths = paths(have), paths(want)
    found = [f"{p} is new" for p in have_paths if p not in want_paths]
    found += [f"{p} is missing" for p in want_paths if p not in have_paths]
    found = found or [f"{jax.tree.structure(have)} instead of {jax.tree.structure(want)}"]
    raise Broken(f"{what} must have the structure of {wanted}: {listed(found)}")


def same_types(what: str, have: Any, wanted: str, want: Any) -> None:
    """Equal structure, shapes, dtypes and weak types."""
    same_structure(what, have, wanted, want)
    for (path, x), y in zip(leaves_with_paths(have), jax.tree.leaves(want), strict=True):
        a, b = type_name(x), type_name(y)
        require("not an array" not in a, f"{what} must hold arrays only: at {path} there is {a}")
        require(a == b, f"{what} must have the types of {wanted}: at {path} there is {a} instead of {b}")


def same_values(what: str, have: Any, wanted: str, want: Any, exact: bool = True, tolerance: float = 1e-5) -> None:
    """Equal structure and values: bitwise, or up to rounding.

    The tolerance is relative to the largest number of a leaf. As it is, it has room for float32 arithmetic in another
    order over a few steps.
    """
    same_structure(what, have, wanted, want)
    for (path, x), y in zip(leaves_with_paths(have), jax.tree.leaves(want), strict=True):
        a, b = numbers(x), numbers(y)
        require(
            a.shape == b.shape, f"{what} must equal {wanted}: at {path} the shape is {a.shape} instead of {b.shape}"
        )
        equal = (a.dtype == b.dtype and a.tobytes() == b.tobytes()) if exact else _close(a, b, tolerance)
        require(equal, f"{what} must equal {wanted}: at {path} there is {_show(a, b)} instead of {_show(b, a)}")


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed random keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def numbers(leaf: Any) -> np.ndarray:
    """A leaf as a NumPy array, random keys included."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    if a.dtype.kind == "b" or b.dtype.kind == "b" or a.dtype == jax.dtypes.float0:
        return bool(np.array_equal(a, b))
    if jnp.issubdtype(a.dtype, jnp.integer):
        # Counts and keys are exact; one-byte arrays are codes, of which rounding may choose the neighboring one.
        slack = 1 if a.dtype.itemsize == 1 else 0
        return bool(np.all(np.abs(a.astype(np.float64) - b.astype(np.float64)) <= slack))
    tolerance = max(tolerance, 4 * float(jnp.finfo(a.dtype).eps))
    wide = np.complex128 if jnp.issubdtype(a.dtype, jnp.complexfloating) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    scale = max(np.abs(b[np.isfinite(b)]), default=0.0)
    return np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _show(a: np.ndarray, b: np.ndarray) -> str:
    """The first element of `a` that differs from `b`."""
    differing = np.argwhere(np.atleast_1d((a != b) & ((a == a) | (b == b))))
    if a.ndim == 0 or not len(differing):
        return f"{a}"
    index = tuple(int(i) for i in differing[0])
    return f"{a[index]} (element {index})"


def finite(what: str, tree: Any, but_infinite: bool = False) -> None:
    """No NaN, and no infinity unless these are allowed."""
    for path, leaf in leaves_with_paths(tree):
        x = numbers(leaf)
        if jnp.issubdtype(x.dtype, jnp.inexact):
            wide = x.astype(np.complex128)
            bad = x[np.isnan(wide) if but_infinite else ~np.isfinite(wide)]
            require(
                not bad.size,
                f"{what} must be {'free of NaN' if but_infinite else 'finite'}: at {path} there is {bad[:1]}",
            )


def buffers(tree: Any) -> list[tuple[str, int]]:
    """The memory addresses of the arrays of a tree; random keys, whose buffers JAX hides, are left out."""
    found = []
    for path, x in leaves_with_paths(tree):
        if isinstance(x, np.ndarray):
            found += [(path, x.__array_interface__["data"][0])] if x.size else []
        elif isinstance(x, jax.Array) and x.size and not is_key(x):
            found += [(path, shard.data.unsafe_buffer_pointer()) for shard in x.addressable_shards]
    return found
