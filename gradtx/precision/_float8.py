# SPDX-License-Identifier: Apache-2.0
"""8-bit floating-point numbers with a scale for each block."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.precision._blockwise import TINY, Blockwise


class Format(NamedTuple):
    dtype: Any
    mantissa: int  # bits behind the point
    smallest: int  # exponent of normal numbers
    top: int  # exponent of what the block's maximum becomes: the largest power of two


FORMATS = {"e4m3": Format(jnp.float8_e4m3fn, 3, -6, 8), "e5m2": Format(jnp.float8_e5m2, 2, -14, 15)}


@dataclass(frozen=True)
class float8(Blockwise):
    """One byte per element: a number with 4 exponent and 3 mantissa bits, or 5 and 2, times the scale of its block.

        code = round(x / s * 2^8),  x = s 2^-8 code       ("e5m2": 2^15)

    s is the largest magnitude of the block. It maps to a power of two, not to the format's largest number, and so is
    stored exactly. "e4m3" is finer and reaches down to 8e-6 of the maximum; "e5m2" reaches down to 5e-10, for second
    moments. Without `signed`, numbers > 0 never become 0.

    Args:
      kind: "e4m3" or "e5m2": the bits of exponent and mantissa.
      block: the length of blocks along the last axis.
      signed: False for numbers >= 0, such as second moments.
      stochastic: whether to round stochastically, see `int8`.

    Reference: Fishman et al. 2024, arXiv:2409.12517.
    """

    kind: Literal["e4m3", "e5m2"] = "e4m3"
    block: int = 256
    signed: bool = True
    stochastic: bool | None = None
    name: ClassVar[str] = "float8"

    def __post_init__(self) -> None:
        if self.kind not in FORMATS:
            raise ValueError(f'float8: kind must be "e4m3" or "e5m2", got {self.kind!r}')
        super().__post_init__()

    @property
    def sparse(self) -> tuple[float, ...]:
        _, mantissa, smallest, top = FORMATS[self.kind]
        return (2.0 ** (smallest - mantissa - top),)

    def codes(self, x: jax.Array, chance: Any) -> jax.Array:
        dtype, mantissa, smallest, top = FORMATS[self.kind]
        scaled = jnp.clip(x, -1, 1) * 2.0**top
        # Rounded explicitly, since compilers may convert by way of another format, or skip the conversion.
        found = round_to_mantissa(scaled, mantissa, smallest, chance if self.stochastic else None)
        if not self.signed:
            found = jnp.where(x > 0, jnp.maximum(found, 2.0 ** (smallest - mantissa)), 0)
        # The bits, and 0 for -0: files of numpy, which Equinox writes, have no float8.
        return jax.lax.bitcast_convert_type(jnp.where(found == 0, 0, found).astype(dtype), jnp.uint8)

    def ratios(self, codes: jax.Array) -> jax.Array:
        # Divided by 2^top in the bits of the exponent: compilers would move a factor to the scale, which may underflow.
        dtype = FORMATS[self.kind].dtype
        # In older checkpoints the codes are of this dtype.
        code = (codes if codes.dtype == dtype else jax.lax.bitcast_convert_type(codes, dtype)).astype(jnp.float32)
        bits = jax.lax.bitcast_convert_type(code, jnp.uint32) - jnp.uint32(FORMATS[self.kind].top << 23)
        return jnp.where(code == 0, 0, from_bits(bits))

    def error_bound(self, block_max: float) -> float:
        bound = 2.0 ** -(FORMATS[self.kind].mantissa + 2) * (1 + 2e-6) * block_max + TINY
        return 2 * bound if self.stochastic else bound


def round_to_mantissa(x: jax.Array, bits: int, smallest: int, chance: Any = None) -> jax.Array:
    """The nearest number, ties to even, with this many mantissa bits and an exponent of at least `smallest`.

    With random numbers in (0, 1) as `chance`: one of the two neighbors, with mean x.
    """
    exponent = jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0x7F800000)
    spacing = jnp.maximum(exponent, jnp.uint32((127 + smallest) << 23)) - jnp.uint32(bits << 23)
    whole = x * from_bits(jnp.uint32(254 << 23) - spacing)
    whole = jnp.round(whole) if chance is None else jnp.copysign(jnp.floor(jnp.abs(whole) + chance), whole)
    return whole * from_bits(spacing)


def from_bits(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
