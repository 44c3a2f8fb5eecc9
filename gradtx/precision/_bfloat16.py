# SPDX-License-Identifier: Apache-2.0
"""The codecs float32, which changes nothing, and bfloat16."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradtx.numerics._random_bits import random_bits
from gradtx.numerics._rounding import round_at_random, round_to_nearest
from gradtx.precision._blockwise import TINY
from gradtx.precision._codec import Codec


@dataclass(frozen=True)
class float32(Codec):
    """4 bytes per element: the array itself, NaN and infinity too. For exceptions from a policy."""

    name: ClassVar[str] = "float32"
    plain: ClassVar[bool] = True
    exact: ClassVar[bool] = True

    def encode(self, x: jax.Array, key: Any = None) -> jax.Array:
        return x

    def decode(self, payload: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return payload.reshape(shape)

    def bytes(self, shape: tuple[int, ...]) -> int:
        return 4 * math.prod(shape)

    def error_bound(self, block_max: float) -> float:
        return 0.0


@dataclass(frozen=True)
class bfloat16(Codec):
    """2 bytes per element: the nearest bfloat16, or, rounded stochastically, one of the two neighbors.

    Finite numbers stay finite; NaN and infinity stay. A moving average that changes by less than 1/256 of itself in a
    step, as most second moments do, never changes if it is rounded to nearest; with stochastic rounding it changes by
    the right amount on average.

    Args:
      stochastic: whether to round stochastically: up with the probability that makes the mean right. `encode` then
        needs a key, and rounds to nearest without one. The bits of an element depend on the key and its position in
        the whole array, not on devices.
    """

    stochastic: bool = False
    name: ClassVar[str] = "bfloat16"
    plain: ClassVar[bool] = True

    def encode(self, x: jax.Array, key: Any = None) -> jax.Array:
        if not self.stochastic or key is None:
            return round_to_nearest(x, jnp.bfloat16).astype(jnp.bfloat16)
        return round_at_random(x, jnp.bfloat16, random_bits(key, x)).astype(jnp.bfloat16)

    def decode(self, payload: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return payload.reshape(shape).astype(jnp.float32)

    def bytes(self, shape: tuple[int, ...]) -> int:
        return 2 * math.prod(shape)

    def error_bound(self, block_max: float) -> float:
        return 2.0 ** (-7 if self.stochastic else -8) * block_max + TINY

    @property
    def needs_key(self) -> bool:
        return self.stochastic
