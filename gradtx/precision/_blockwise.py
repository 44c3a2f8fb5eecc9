# SPDX-License-Identifier: Apache-2.0
"""Codecs with a scale for each block of the last axis."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.numerics._random_bits import random_bits
from gradtx.precision._codec import Codec

TINY = float(np.finfo(np.float32).tiny)
"""The smallest normal float32. CPUs may compute with zeros below it, so no scale is smaller."""


class Blocks(NamedTuple):
    """Codes for the elements, in the array's shape (4-bit codes: two a byte), and a float32 scale for each block."""

    codes: jax.Array
    scales: jax.Array


class Blockwise(Codec):
    """A codec that maps the elements of a block, divided by its scale, to codes.

    The last axis is cut into blocks, of which the last may be shorter; a scalar is one block. The scale is the finite
    element of the largest magnitude, with its sign if `turned`, and below the smallest normal float32 zero. What is not
    finite leaves it alone: infinity counts as the scale, NaN as 0, or as the scale where numbers are >= 0, since the
    small step is the safe one.
    """

    block: int
    stochastic = False
    turned = False

    def check(self, shape: tuple[int, ...]) -> None:
        size = math.prod(shape)
        if size >= self.block and self.bytes(shape) >= 4 * size:
            raise ValueError(
                f"it would take {self.bytes(shape)} bytes with a scale for each block of the last axis, {4 * size} in "
                "float32"
            )

    def encode(self, x: jax.Array, key: Any = None) -> Any:
        blocks, chance = in_blocks(x, self.block), self.chance(key, x)
        scales = block_scales(blocks, self.signed, self.turned)
        chance = in_blocks(chance, self.block) if self.stochastic else chance
        codes = self.codes(ratio(blocks, scales[..., None], self.signed), chance)
        return Blocks(self.packed(from_blocks(codes, x.shape)), scales.reshape(scales_shape(x.shape, self.block)))

    def decode(self, payload: Blocks, shape: tuple[int, ...]) -> jax.Array:
        codes = in_blocks(self.unpacked(payload.codes, shape), self.block)
        scales = payload.scales.reshape(codes.shape[:-1])
        return from_blocks(self.ratios(codes) * scales[..., None], shape)

    def payload(self, fields: Mapping[str, jax.Array]) -> Any:
        return Blocks(**fields)

    def saturated(self, payload: Any) -> jax.Array:
        """How many elements have the largest code of either sign."""
        ratios = self.ratios(self.unpacked(payload.codes, self.shape_of(payload)))
        return jnp.sum(jnp.abs(ratios) >= 1, dtype=jnp.result_type(float))

    def bytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) + 4 * math.prod(scales_shape(shape, self.block))

    def chance(self, key: Any, x: jax.Array) -> Any:
        """What is added to places between two codes before they are cut: 1/2, or random numbers in (0, 1)."""
        if not self.stochastic:
            return np.float32(0.5)
        if key is None:
            raise ValueError(f"{self.name}: encode needs a key to round stochastically, got None")
        # A little away from 0 and 1, so that what is a value stays it in spite of rounding errors.
        return (random_bits(key, x) >> 8).astype(jnp.float32) * np.float32(2.0**-24 - 2.0**-35) + np.float32(2.0**-12)

    def codes(self, x: jax.Array, chance: Any) -> jax.Array:
        """The codes of ratios in [-1, 1] or beyond, by rounding errors or because they are infinite."""
        raise NotImplementedError

    def ratios(self, codes: jax.Array) -> jax.Array:
        raise NotImplementedError

    @property
    def needs_key(self) -> bool:
        return self.stochastic

    def packed(self, codes: jax.Array) -> jax.Array:
        return codes

    def unpacked(self, codes: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return codes


def check_block(codec: Any, even: bool = False) -> None:
    """Raises if the codec's option is no length of blocks."""
    block = codec.block
    if isinstance(block, bool) or not isinstance(block, int) or block < 1 or (even and block % 2):
        what = "an even whole number, at least 2" if even else "a whole number, at least 1"
        raise ValueError(f"{codec.name}: block must be {what}, got {block!r}")


def in_blocks(x: jax.Array, block: int) -> jax.Array:
    """The last axis as two, blocks and their elements; the last block is filled up with zeros. A scalar is a vector."""
    x = x.reshape(x.shape or (1,))
    n = x.shape[-1]
    block = _length(n, block)
    count = -(-n // block)
    if n % block:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count * block - n)])
    return x.reshape(*x.shape[:-1], count, block)


def from_blocks(blocks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    n = shape[-1] if shape else 1
    return blocks.reshape(*shape[:-1], blocks.shape[-2] * blocks.shape[-1])[..., :n].reshape(shape)


def scales_shape(shape: tuple[int, ...], block: int) -> tuple[int, ...]:
    """One for each block; a scalar has one too."""
    return (*shape[:-1], -(-shape[-1] // _length(shape[-1], block))) if shape else ()


def block_scales(blocks: jax.Array, signed: bool, turned: bool) -> jax.Array:
    """The largest finite magnitude along the last axis; `turned`: the element that has it, of two the positive one."""
    finite = finite_or_zero(blocks)
    if not turned:
        return zero_if_tiny(jnp.max(jnp.abs(finite) if signed else finite, axis=-1, initial=0))
    # By one search, and not one for the largest and one for the smallest: the bits of magnitudes are in their order.
    bits = jax.lax.bitcast_convert_type(jnp.abs(finite), jnp.uint32) << 1 | (finite >= 0).astype(jnp.uint32)
    found = jnp.max(bits, axis=-1)
    magnitude = jax.lax.bitcast_convert_type(found >> 1, jnp.float32)
    return zero_if_tiny(jnp.where(found & 1, magnitude, -magnitude))


def ratio(x: jax.Array, scale: jax.Array, signed: bool) -> jax.Array:
    """x / scale, up to rounding errors, 0 where the scale is 0.

    Of NaN 0; where numbers are >= 0 infinity, and what is > 0 stays so.
    """
    # A division for each scale, a product for each element. Divided by 256 where large, or 1 / scale would be too small
    # for a normal number.
    shrink = jnp.where(jnp.abs(scale) > 1, np.float32(2**-8), np.float32(1))
    shrunk = scale * shrink
    inverse = jnp.where(scale == 0, 0, 1 / jnp.where(scale == 0, 1, shrunk))
    found = x * shrink * inverse
    if signed:
        return jnp.where(jnp.isnan(found), 0, found)
    found = jnp.where(x > 0, jnp.maximum(found, np.float32(TINY)), jnp.where(jnp.isnan(x), jnp.inf, 0))
    return jnp.where(scale > 0, found, 0)


def finite_or_zero(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(x), x, 0)


def zero_if_tiny(scale: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(scale) >= np.float32(TINY), scale, 0)


def _length(n: int, block: int) -> int:
    return max(min(n, block), 1)
