# SPDX-License-Identifier: Apache-2.0
"""The base of storage codecs: ways to keep a float32 array in fewer bytes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax


class Codec:
    """Base of storage codecs: small immutable values, equal and hashable by their options.

    The payload of an array is a tree of plain arrays whose leading axes are the array's, so that it is checkpointed,
    donated, scanned and sharded like the array. Blocks lie along the last axis. Encoding a decoded payload gives the
    same payload.

    Attributes:
      name: the codec in tables, such as "int8".
      plain: whether the payload is one array.
      exact: whether nothing is rounded; its payloads have no scales.
      of_symmetric: whether it is for symmetric matrices only.
    """

    name: str = ""
    plain = False
    exact = False
    of_symmetric = False

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises a ValueError with the reason if arrays of this shape cannot be stored, such as misfit blocks."""

    def encode(self, x: jax.Array, key: Any = None) -> Any:
        """The payload of a float32 array. `key`: a random key if `needs_key`; without one, it is rounded to nearest."""
        raise NotImplementedError

    def decode(self, payload: Any, shape: tuple[int, ...]) -> jax.Array:
        """The float32 array of this shape that a payload stands for."""
        raise NotImplementedError

    def payload(self, fields: Mapping[str, jax.Array]) -> Any:
        """The payload with these fields."""
        raise NotImplementedError

    def shape_of(self, payload: Any) -> tuple[int, ...]:
        """The shape of the array that a payload stands for."""
        return payload.codes.shape

    def divides(self, length: int, parts: int) -> bool:
        """Whether so many equal parts of a last axis of this length can be encoded each by itself."""
        return True

    def bytes(self, shape: tuple[int, ...]) -> int:
        """The bytes of the payload of an array of this shape, scales included."""
        raise NotImplementedError

    def error_bound(self, block_max: float) -> float:
        """The largest |decode(encode(x)) - x| for an element of a block whose largest magnitude is `block_max`."""
        raise NotImplementedError

    @property
    def signed(self) -> bool:
        """False for codecs of numbers >= 0, such as second moments."""
        return True

    @property
    def needs_key(self) -> bool:
        """Whether it rounds stochastically."""
        return False

    @property
    def nearest(self) -> "Codec":
        """The codec with the same payloads that rounds to nearest."""
        return dataclasses.replace(self, stochastic=False) if self.needs_key else self  # type: ignore[type-var]
