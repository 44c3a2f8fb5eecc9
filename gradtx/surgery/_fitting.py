# SPDX-License-Identifier: Apache-2.0
"""Whether the old value of a slot fits into the new slot, and how it grows if it is smaller."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core._payloads import Payload, decoded, encoded_like, is_payload
from gradtx.surgery._slots import joined, names

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
        if way is not None and not callable(way) and not (isinstance(way, str) and way in WAYS):
            raise ValueError(f"{where}: grow must be one of {', '.join(map(repr, WAYS))} or a function, got {way!r}")


def by_path(slot: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """The arrays of a slot, which may have several for one parameter, by their paths in it."""
    return {joined(*names(rest)): x for rest, x in jax.tree_util.tree_leaves_with_path(slot, is_leaf=is_leaf)}


def fitted(old: dict[str, Any], slot: Any, way: Any, shape: tuple[int, ...] | None) -> Fit:
    """The old arrays of a slot, by path, in the dtypes of the new slot, grown to its shapes if they are smaller.

    `shape` is that of the parameter; None if the slot belongs to none, and so does not grow.
    """
    new, may_grow = by_path(slot), shape is not None
    if set(old) != set(new):
        # Slots in another form (packed, factored) are not translated.
        return Fit(None, f"stored as {_types(old)} before, as {_types(new)} now")
    pairs = [(old[rest], x) for rest, x in new.items()]
    if any(not _holds(b, a) for a, b in pairs):
        return Fit(None, f"{_types(old)} before, {_types(new)} now")
    if all(jnp.shape(a) == b.shape for a, b in pairs):
        return Fit([_cast(a, b) for a, b in pairs])
    kept = {path: x for path, x in by_path(slot, is_payload).items() if is_payload(x)}
    if kept and shape is not None:
        return _fitted_decoded(old, slot, kept, way, shape)
    change = f"shape {_shapes(old)} before, {_shapes(new)} now"
    if not may_grow or way == "reset" or not all(_is_smaller(a, b) for a, b in pairs):
        return Fit(None, change)
    if way is None:
        return Fit(None, change, is_smaller=True)
    return Fit([_grown(a, b, way) for a, b in pairs], change, is_grown=True)


def _fitted_decoded(old: dict[str, Any], slot: Any, kept: dict[str, Payload], way: Any, shape: tuple[int, ...]) -> Fit:
    """`fitted` of a slot with payloads, in the arrays that they represent: codes alone cannot grow."""
    arrays = dict(old)
    for path, payload in kept.items():
        fields = {name: arrays.pop(joined(path, name)) for name in payload._fields}  # type: ignore[attr-defined]
        before = payload.codec.payload(fields)
        size, now = payload.codec.shape_of(before), shape if payload.fits(shape) else payload.shape
        # Of an odd number of 4-bit codes the shape is known only from the parameter.
        size = (*size[:-1], now[-1]) if size[-1:] == payload.shape[-1:] else size
        arrays[path] = payload.codec.decode(before, size)
    new = decoded(slot, lambda path, x: shape if x.fits(shape) else x.shape)
    fit = fitted(arrays, new, way, shape)
    if fit.values is None:
        return fit
    grown = jax.tree.unflatten(jax.tree.structure(new), fit.values)
    return dataclasses.replace(fit, values=jax.tree.leaves(encoded_like(slot, grown)))


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
