# SPDX-License-Identifier: Apache-2.0
"""Whether the old value of a slot fits into the new slot, and how it grows if it is smaller."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

Way = Literal["init", "mean", "reset"]
WAYS: tuple[str, ...] = get_args(Way)
Grow = Way | Callable[[jax.Array, jax.Array], jax.Array] | Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """The new values of the arrays of a slot, or None and the reason."""

    values: list | None
    reason: str = ""
    is_grown: bool = False
    is_smaller: bool = False


def check_grow(where: str, grow: Any) -> None:
    """Raises unless `grow` is a way to grow, or a mapping of ways."""
    for way in grow.values() if isinstance(grow, Mapping) else (grow,):
        if way is not None and way not in WAYS and not callable(way):
            raise ValueError(f"{where}: grow must be one of {', '.join(map(repr, WAYS))} or a function, got {way!r}")


def fitted(old: dict[str, Any], new: dict[str, Any], way: Any, may_grow: bool) -> Fit:
    """The old arrays of a slot in the dtypes of the new ones, grown to their shapes if they are smaller.

    `old` and `new` are arrays by their paths in the slot, which may have several for one parameter.
    """
    if set(old) != set(new):
        # Slots in another form (packed, factored) are not translated.
        return Fit(None, f"stored as {_types(old)} before, as {_types(new)} now")
    pairs = [(old[rest], x) for rest, x in new.items()]
    if any(not _holds(b, a) for a, b in pairs):
        return Fit(None, f"{_types(old)} before, {_types(new)} now")
    if all(jnp.shape(a) == b.shape for a, b in pairs):
        return Fit([_cast(a, b) for a, b in pairs])
    change = f"shape {_shapes(old)} before, {_shapes(new)} now"
    if not may_grow or way == "reset" or not all(_is_smaller(a, b) for a, b in pairs):
        return Fit(None, change)
    if way is None:
        return Fit(None, change, is_smaller=True)
    return Fit([_grown(a, b, way) for a, b in pairs], change, is_grown=True)


def _grown(old: Any, new: jax.Array, way: Any) -> jax.Array:
    old = jnp.asarray(old)
    if callable(way):
        found = jnp.asarray(way(old, new))
        if found.shape != new.shape:
            raise ValueError(f"migrate: grow must return the shape {new.shape} for {old.shape}, got {found.shape}")
        return found.astype(new.dtype)
    if way == "mean" and old.size:
        wide = old.astype(jnp.promote_types(old.dtype, jnp.float32))
        for axis, n in enumerate(new.shape):
            missing = list(wide.shape)
            missing[axis] = n - wide.shape[axis]
            mean = jnp.mean(wide, axis=axis, keepdims=True)
            wide = jnp.concatenate([wide, jnp.broadcast_to(mean, missing)], axis=axis)
        return wide.astype(new.dtype)
    return new.at[tuple(slice(n) for n in old.shape)].set(old.astype(new.dtype))


def _cast(old: Any, new: Any) -> jax.Array:
    is_ready = isinstance(old, jax.Array) and old.dtype == new.dtype
    return old if is_ready else jnp.asarray(old, new.dtype)


def _is_smaller(old: Any, new: Any) -> bool:
    shape = jnp.shape(old)
    # Integers may be codes or indices, for which there are no sensible new entries.
    is_float = jnp.issubdtype(new.dtype, jnp.inexact)
    return is_float and len(shape) == new.ndim and all(a <= b for a, b in zip(shape, new.shape, strict=True))


def _holds(new: Any, old: Any) -> bool:
    """Whether the dtype of `new` is of the same sort as that of `old`; floats may become complex."""
    a, b = (getattr(x, "dtype", None) or jnp.result_type(x) for x in (old, new))
    if a == b:
        return True
    sorts = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    found = [next((i for i, sort in enumerate(sorts) if jnp.issubdtype(x, sort)), -1) for x in (a, b)]
    return found[0] == found[1] >= 0 or found == [2, 3]


def _shapes(arrays: dict[str, Any]) -> str:
    return " and ".join(str(jnp.shape(x)) for x in arrays.values())


def _types(arrays: dict[str, Any]) -> str:
    return " and ".join(f"{getattr(x, 'dtype', type(x).__name__)}{list(jnp.shape(x))}" for x in arrays.values())
