# SPDX-License-Identifier: Apache-2.0
"""The codec of symmetric matrices, which keeps one half of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax

from gradtx.core._placement import with_whole_axes
from gradtx.numerics._triangular import packed, side_of, unpacked
from gradtx.precision._codec import Codec


class Triangle(NamedTuple):
    """Of each symmetric matrix the numbers on the diagonal and on one side of it, in a row."""

    codes: jax.Array


@dataclass(frozen=True)
class symmetric(Codec):
    """Symmetric matrices (..., n, n) as n (n + 1) / 2 float32 numbers each: half of the bytes, and nothing is rounded.

    For slots of which the class of the state says that they are symmetric, such as the factors and roots of Shampoo:
    `symmetric_fields = ("factors", "roots")` in the class. Of a matrix that is not, one half is lost.
    """

    name: ClassVar[str] = "symmetric"
    exact: ClassVar[bool] = True
    of_symmetric: ClassVar[bool] = True

    def check(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError("it is no stack of square matrices, (..., n, n)")

    def encode(self, x: jax.Array, key: Any = None) -> Triangle:
        return Triangle(packed(with_whole_axes(x, 2)))

    def decode(self, payload: Triangle, shape: tuple[int, ...]) -> jax.Array:
        return unpacked(with_whole_axes(payload.codes, 1))

    def payload(self, fields: Mapping[str, jax.Array]) -> Triangle:
        return Triangle(**fields)

    def shape_of(self, payload: Any) -> tuple[int, ...]:
        *lead, size = payload.codes.shape
        return (*lead, side_of(size), side_of(size))

    def bytes(self, shape: tuple[int, ...]) -> int:
        n = shape[-1]
        return 4 * math.prod(shape[:-2]) * (n * (n + 1) // 2)

    def error_bound(self, block_max: float) -> float:
        return 0.0
