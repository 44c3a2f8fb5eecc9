# SPDX-License-Identifier: Apache-2.0
"""Payloads that know their codec, so that a state can be decoded without the transformation that made it."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


class Payload:
    """The methods of a codec's payload. Each codec has a payload class of its own, a named tuple class."""

    __slots__ = ()
    codec: Any  # a `Codec` of `gradtx.precision`

    def decoded(self, shape: tuple[int, ...]) -> jax.Array:
        """The float32 array of this shape that the payload represents."""
        if not any(map(is_payload, self)):  # type: ignore[call-overload]  # a named tuple, by its other base
            return self.codec.decode(self, shape)
        # Stored once more, by a `stored` around this one.
        like = jax.eval_shape(self.codec.encode, jax.ShapeDtypeStruct(shape, jnp.float32))
        fields = [x.decoded(y.shape).astype(y.dtype) if is_payload(x) else x for x, y in zip(self, like, strict=True)]  # type: ignore[call-overload]
        return type(self)(*fields).decoded(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array; for 4-bit codes of an array whose last axis is odd, that axis is one longer."""
        return self.codec.shape_of(self)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether this may be the payload of an array of this shape."""
        try:
            self.codec.check(shape)
        except ValueError:
            return False
        expected = jax.eval_shape(self.codec.encode, jax.ShapeDtypeStruct(shape, jnp.float32))
        return [jnp.shape(x) for x in tuple(self)] == [x.shape for x in expected]  # type: ignore[call-overload]

    def saturated(self) -> jax.Array:
        """The number of elements whose code is the largest or the smallest there is."""
        return self.codec.saturated(self)  # type: ignore[attr-defined]  # codecs whose payloads are no arrays have it

    def largest_scale(self) -> jax.Array:
        """The largest of the payload's scales in magnitude."""
        scales = self[1]  # type: ignore[index]  # a named tuple, codes first
        if is_payload(scales):  # stored once more, by a `stored` around this one
            scales = scales.decoded(scales.shape)
        return jnp.max(jnp.abs(scales), initial=0)

    def encoded(self, x: jax.Array) -> Any:
        """The payload of another array with the same codec, rounded to the nearest code."""
        return of_codec(self.codec, self.codec.encode(x))

    def __reduce__(self) -> tuple:
        plain = type(self).__mro__[2]
        return _made, (self.codec, plain, tuple(self))  # type: ignore[call-overload]  # a tuple, by its other base


def of_codec(codec: Any, payload: Any) -> Any:
    """The payload in the class that knows the codec; a payload that is a plain array is returned unchanged.

    How it was rounded is no part of what it stands for: the class knows the codec that rounds to nearest.
    """
    return payload if isinstance(payload, jax.Array) else _made(codec, type(payload), payload)


@functools.cache
def _class(codec: Any, plain: type) -> type:
    return type(plain.__name__, (Payload, plain), {"codec": codec, "__slots__": ()})


def _made(codec: Any, plain: type, fields: tuple) -> Any:
    return _class(codec.nearest, plain)(*fields)


def payload_of(codec: Any, x: Any) -> Any:
    """The object as a payload of this codec, None if it is something else.

    Containers that know fields only by name, such as the states of Flax's nnx, return payloads as mappings.
    """
    if is_payload(x):
        return x if x.codec == codec.nearest else None
    if codec.plain:
        return x if hasattr(x, "dtype") else None
    return codec.payload(x) if isinstance(x, Mapping) and "codes" in x else None


def payloads(state: Any) -> list[Payload]:
    """All payloads in a state, apart from those that are plain arrays."""
    return [x for x in jax.tree.leaves(state, is_leaf=is_payload) if is_payload(x)]


def is_payload(x: Any) -> bool:
    return isinstance(x, Payload)


def kept_alike(state: Any, other: Any) -> bool:
    """Whether one state can take the payloads of the other: as many of each codec, or it was restored as dictionaries.

    There are more where a parameter has grown so large that it is now stored.
    """
    restored = any(_is_kept(x) and not is_payload(x) for x in jax.tree.leaves(state, is_leaf=_is_kept))
    return restored or Counter(x.codec for x in payloads(state)) == Counter(x.codec for x in payloads(other))


def _is_kept(x: Any) -> bool:
    return is_payload(x) or isinstance(x, dict) and "codes" in x


def decoded(state: Any, shape_at: Callable[[tuple, Payload], tuple[int, ...]]) -> Any:
    """The state with each payload replaced by the array of the shape `shape_at(path, payload)` that it represents."""

    def one(path: tuple, x: Any) -> Any:
        return x.decoded(shape_at(path, x)) if is_payload(x) else x

    return jax.tree_util.tree_map_with_path(one, state, is_leaf=is_payload)


def encoded_like(kept: Any, state: Any) -> Any:
    """The state with its arrays encoded where `kept` has payloads."""

    def like(k: Any, x: Any) -> Any:
        return k.encoded(x) if is_payload(k) and not is_payload(x) else x

    return jax.tree.map(like, kept, state, is_leaf=is_payload)
