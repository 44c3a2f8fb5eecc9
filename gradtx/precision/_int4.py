# SPDX-License-Identifier: Apache-2.0
"""4-bit codes, two elements per byte; second moments are scaled by the maxima of their rows and columns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._over_devices import largest
from gradtx.core._placement import laid_like, with_whole_axes
from gradtx.numerics._nibbles import pack, packed_length, unpack
from gradtx.precision._blockwise import (
    TINY,
    Blocks,
    Blockwise,
    finite_or_zero,
    ratio,
    scales_shape,
    zero_if_tiny,
)
from gradtx.precision._int8 import signed_codes, signed_ratios

DECADES = 3


class Factored(NamedTuple):
    """Codes, two per byte along the last axis, and the maxima of each matrix's rows and columns in float32."""

    codes: jax.Array
    rows: jax.Array
    columns: jax.Array


@dataclass(frozen=True)
class int4(Blockwise):
    """Half a byte per element: one of 16 values, times the largest element of the block, or of the row or column.

    `signed`: x = s q[code], where s is the element of largest magnitude in the block. Decade i = 0 ... 2, from 10^(i-3)
    to 10^(i-2), is cut into 2^i equal parts; the values q are their centers, the negatives of these, 0 and 1.

    `signed=False`, for second moments: x = s (code + 1) / 16, without 0, which would give an unlimited step. In arrays
    with two or more axes, s is the smaller of the maxima of the element's row and column; in vectors, that of its
    block.

    Args:
      block: the length of blocks along the last axis, an even number.
      signed: False for numbers >= 0, such as second moments.
      stochastic: whether to round stochastically, see `int8`.

    Reference: Li et al. 2023, arXiv:2309.01507, where the s of signed numbers is positive.
    """

    block: int = 128
    signed: bool = True
    stochastic: bool | None = None
    name: ClassVar[str] = "int4"
    even: ClassVar[bool] = True

    @property
    def turned(self) -> bool:
        return self.signed

    def encode(self, x: jax.Array, key: Any = None) -> Blocks | Factored:
        if not self._factors(x.shape):
            return super().encode(x, key)
        if self.stochastic and key is None:
            return self.nearest.encode(x)
        finite = finite_or_zero(x)
        rows = zero_if_tiny(largest(finite, axis=-1, initial=0))
        columns = zero_if_tiny(largest(finite, axis=-2, initial=0))
        codes = self.codes(ratio(x, smaller(rows, columns), signed=False), self.chance(key, x))
        return Factored(laid_like(self.packed(codes), x), rows, columns)

    def decode(self, payload: Any, shape: tuple[int, ...]) -> jax.Array:
        if not self._factors(shape):
            return super().decode(payload, shape)
        codes = laid_like(self.unpacked(payload.codes, shape), payload.codes)
        return self.ratios(codes) * smaller(payload.rows, payload.columns)

    def payload(self, fields: Mapping[str, jax.Array]) -> Any:
        return Factored(**fields) if "rows" in fields else super().payload(fields)

    def shape_of(self, payload: Any) -> tuple[int, ...]:
        if isinstance(payload, Factored):
            return (*payload.rows.shape, payload.columns.shape[-1])
        shape = payload.codes.shape
        return (*shape[:-1], 2 * shape[-1]) if shape else shape

    def bytes(self, shape: tuple[int, ...]) -> int:
        codes = math.prod(shape[:-1]) * packed_length(shape[-1], self.block) if shape else 1
        if self._factors(shape):
            return codes + 4 * math.prod(shape[:-2]) * (shape[-2] + shape[-1])
        return codes + 4 * math.prod(scales_shape(shape, self.block))

    @property
    def sparse(self) -> tuple[float, ...]:
        return 5.5 * 10.0**-DECADES, 32.5 * 10.0**-DECADES

    def codes(self, x: jax.Array, chance: Any) -> jax.Array:
        if self.signed:
            return signed_codes(x, DECADES, chance)
        return (jnp.clip(jnp.floor(16 * x + chance), 1, 16) - 1).astype(jnp.int32).astype(jnp.uint8)

    def ratios(self, codes: jax.Array) -> jax.Array:
        if self.signed:
            return signed_ratios(codes, DECADES)
        return (codes.astype(jnp.int32).astype(jnp.float32) + 1) * np.float32(1 / 16)

    def packed(self, codes: jax.Array) -> jax.Array:
        return pack(with_whole_axes(codes, 1), self.block) if codes.ndim else codes

    def unpacked(self, codes: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return unpack(with_whole_axes(codes, 1), self.block, shape[-1]) if shape else codes

    def error_bound(self, block_max: float) -> float:
        """As in `Codec`; for second moments, `block_max` is the smaller of the maxima of the row and the column."""
        bound = (0.225 if self.stochastic else 0.1125) if self.signed else 1 / 16
        return (bound + 2e-7) * block_max + TINY

    def _factors(self, shape: tuple[int, ...]) -> bool:
        return not self.signed and len(shape) >= 2


def smaller(rows: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.minimum(rows[..., :, None], columns[..., None, :])
