# SPDX-License-Identifier: Apache-2.0
"""Packing of two codes below 16 into one byte."""

import math

import jax
import jax.numpy as jnp


def pack(codes: jax.Array, block: int) -> jax.Array:
    """Bytes of two codes each: for each block of the last axis, the first half in the low bits, the second in the high.

    Halves and not neighbors, so that unpacking reads contiguous memory. `block` is even; the last block may be shorter.
    """
    n = codes.shape[-1]
    whole = n // block * block
    return _join(
        _pack(codes[..., :whole].reshape(*codes.shape[:-1], n // block, block)).reshape(*codes.shape[:-1], whole // 2),
        _pack(codes[..., whole:]),
    )


def unpack(packed: jax.Array, block: int, n: int) -> jax.Array:
    """The n codes along the last axis that `pack` made bytes of."""
    leading, whole = packed.shape[:-1], n // block * block
    blocks = packed[..., : whole // 2].reshape(*leading, n // block, block // 2)
    return _join(_unpack(blocks, block).reshape(*leading, whole), _unpack(packed[..., whole // 2 :], n - whole))


def packed_length(n: int, block: int) -> int:
    """How many bytes hold n codes."""
    return n // block * (block // 2) + math.ceil(n % block / 2)


def _join(first: jax.Array, last: jax.Array) -> jax.Array:
    if last.shape[-1] == 0:
        return first
    return jnp.concatenate([first, last], axis=-1) if first.shape[-1] else last


def _pack(codes: jax.Array) -> jax.Array:
    half = math.ceil(codes.shape[-1] / 2)
    low, high = codes[..., :half], codes[..., half:]
    if codes.shape[-1] % 2:
        high = jnp.pad(high, [(0, 0)] * (codes.ndim - 1) + [(0, 1)])
    return low | high << 4


def _unpack(packed: jax.Array, n: int) -> jax.Array:
    return jnp.concatenate([packed & 15, packed >> 4], axis=-1)[..., :n]
