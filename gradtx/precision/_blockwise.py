# SPDX-License-Identifier: Apache-2.0
"""Codecs with a scale for each block of the last axis."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._placement import explicit_sharding, laid_like, with_whole_axes
from gradtx.numerics._random_bits import random_bits
from gradtx.precision._codec import Codec

TINY = float(np.finfo(np.float32).tiny)
"""The smallest normal float32. CPUs may compute with zeros below it, so no scale is smaller."""


class Blocks(NamedTuple):
    """Codes of the elements, in the array's shape (4-bit codes: two per byte), and a float32 scale for each block."""

    codes: jax.Array
    scales: jax.Array


class Blockwise(Codec):
    """A codec that maps the elements of a block, divided by its scale, to codes.

    The last axis is cut into blocks, of which the last may be shorter; a scalar is one block. The scale is the largest
    magnitude among the finite elements, with the element's sign if `turned`, and 0 below the smallest normal float32.
    Infinity is encoded like the scale. NaN is encoded as 0, or like the scale by codecs for numbers >= 0: a second
    moment that is too large gives a small step, which is safe.

    Signed numbers are rounded stochastically unless the codec is told otherwise. To nearest, 0.9 of the smallest value
    is that value again, and so for all values that are far apart: a first moment would never end, while its second
    moment does. But none is more than doubled: below half of the smallest value they always become 0. If a tiny number
    became the smallest value, by however small a chance, its step would be huge beside a second moment in float32.
    """

    block: int
    stochastic: bool | None = None
    turned = False
    even = False  # whether blocks must be of an even length

    def __post_init__(self) -> None:
        check_block(self, self.even)
        if self.stochastic is None:
            object.__setattr__(self, "stochastic", self.signed)

    def check(self, shape: tuple[int, ...]) -> None:
        size = math.prod(shape)
        if size >= self.block and self.bytes(shape) >= 4 * size:
            raise ValueError(
                f"it would take {self.bytes(shape)} bytes with a scale for each block of the last axis, {4 * size} in "
                "float32"
            )

    def encode(self, x: jax.Array, key: Any = None) -> Any:
        if self.stochastic and key is None:
            return self.nearest.encode(x)
        blocks, chance = in_blocks(x, self.block), self.chance(key, x)
        scales = block_scales(blocks, self.signed, self.turned)
        ratios = ratio(blocks, scales[..., None], self.signed)
        if self.stochastic:
            chance = in_blocks(chance, self.block)
            ratios = self.never_doubled(ratios) if self.signed else ratios
        codes = self.codes(ratios, chance)
        codes = laid_like(self.packed(from_blocks(codes, x.shape)), x)
        return Blocks(codes, scales.reshape(scales_shape(x.shape, self.block)))

    def decode(self, payload: Blocks, shape: tuple[int, ...]) -> jax.Array:
        codes = in_blocks(self.unpacked(payload.codes, shape), self.block)
        scales = payload.scales.reshape(codes.shape[:-1])
        return laid_like(from_blocks(self.ratios(codes) * scales[..., None], shape), payload.codes)

    def payload(self, fields: Mapping[str, jax.Array]) -> Any:
        return Blocks(**fields)

    def saturated(self, payload: Any) -> jax.Array:
        """The number of elements with the largest code of either sign."""
        ratios = self.ratios(self.unpacked(payload.codes, self.shape_of(payload)))
        return jnp.sum(jnp.abs(ratios) >= 1, dtype=jnp.result_type(float))

    def divides(self, length: int, parts: int) -> bool:
        block = _length(length, self.block)
        return length % block == 0 and length // block % parts == 0

    def bytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) + 4 * math.prod(scales_shape(shape, self.block))

    def chance(self, key: Any, x: jax.Array) -> Any:
        """The offset added to codes before they are rounded down: 1/2, or stochastically a random number in (0, 1)."""
        if not self.stochastic:
            return np.float32(0.5)
        # At some distance from 0 and 1, so that values of the codec keep their codes in spite of rounding errors.
        return (random_bits(key, x) >> 8).astype(jnp.float32) * np.float32(2.0**-24 - 2.0**-35) + np.float32(2.0**-12)

    def codes(self, x: jax.Array, chance: Any) -> jax.Array:
        """The codes of ratios in [-1, 1]; ratios may lie outside of it by rounding errors, or be infinite."""
        raise NotImplementedError

    def ratios(self, codes: jax.Array) -> jax.Array:
        raise NotImplementedError

    @property
    def needs_key(self) -> bool:
        return bool(self.stochastic)

    @property
    def nearest(self) -> Codec:
        # None in codecs that were pickled before there was a choice.
        return self if self.stochastic is False else dataclasses.replace(self, stochastic=False)  # type: ignore[type-var]

    @property
    def sparse(self) -> tuple[float, ...]:
        """The smallest ratios above 0 of a signed codec, as long as each is more than twice the one before."""
        raise NotImplementedError

    def never_doubled(self, ratios: jax.Array) -> jax.Array:
        """Ratios of which none can be rounded up to more than twice its size."""
        size = jnp.abs(ratios)
        for below, above in itertools.pairwise((0.0, *self.sparse)):
            size = jnp.where((size > below) & (size < above / 2), below, size)
        return jnp.copysign(size, ratios)

    def packed(self, codes: jax.Array) -> jax.Array:
        return codes

    def unpacked(self, codes: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return codes


def check_block(codec: Any, even: bool = False) -> None:
    """Raises unless the codec's `block` is a length of blocks."""
    block = codec.block
    if isinstance(block, bool) or not isinstance(block, int) or block < 1 or (even and block % 2):
        what = "an even whole number, at least 2" if even else "a whole number, at least 1"
        raise ValueError(f"{codec.name}: block must be {what}, got {block!r}")


def in_blocks(x: jax.Array, block: int) -> jax.Array:
    """x with its last axis split into blocks and their elements, padded with zeros; a scalar becomes a vector first."""
    x = x.reshape(x.shape or (1,))
    n = x.shape[-1]
    block = _length(n, block)
    count = -(-n // block)
    if (sharding := explicit_sharding(x)) is not None and n:
        parts = n // sharding.shard_shape(x.shape)[-1]
        # A block must not lie on several devices.
        x = with_whole_axes(x, 1) if n % block or count % parts else x
    if n % block:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count * block - n)])
    return x.reshape(*x.shape[:-1], count, block)


def from_blocks(blocks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    n = shape[-1] if shape else 1
    return blocks.reshape(*shape[:-1], blocks.shape[-2] * blocks.shape[-1])[..., :n].reshape(shape)


def scales_shape(shape: tuple[int, ...], block: int) -> tuple[int, ...]:
    """The shape of the scales, one for each block; () for a scalar."""
    return (*shape[:-1], -(-shape[-1] // _length(shape[-1], block))) if shape else ()


def block_scales(blocks: jax.Array, signed: bool, turned: bool) -> jax.Array:
    """The largest finite magnitude along the last axis; if `turned`, its element, the positive one of two."""
    finite = finite_or_zero(blocks)
    if not turned:
        return zero_if_tiny(jnp.max(jnp.abs(finite) if signed else finite, axis=-1, initial=0))
    # One maximum over bits, which are ordered like the magnitudes, instead of a maximum and a minimum.
    bits = jax.lax.bitcast_convert_type(jnp.abs(finite), jnp.uint32) << 1 | (finite >= 0).astype(jnp.uint32)
    found = jnp.max(bits, axis=-1)
    magnitude = jax.lax.bitcast_convert_type(found >> 1, jnp.float32)
    return zero_if_tiny(jnp.where(found & 1, magnitude, -magnitude))


def ratio(x: jax.Array, scale: jax.Array, signed: bool) -> jax.Array:
    """x / scale up to rounding errors, and 0 where the scale is 0.

    If `signed`, NaN becomes 0; otherwise NaN becomes infinity, and numbers > 0 stay > 0.
    """
    # One division per scale and one product per element. Large scales are divided by 256 first, or 1 / scale would be
    # below the smallest normal number.
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
