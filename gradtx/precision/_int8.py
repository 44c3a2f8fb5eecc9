# SPDX-License-Identifier: Apache-2.0
"""8-bit codes of the dynamic map: many near the block's maximum, some down to a millionth of it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradtx.numerics._dynamic_map import rank_of, value_of_rank
from gradtx.precision._blockwise import TINY, Blockwise

DECADES = 7


@dataclass(frozen=True)
class int8(Blockwise):
    """One byte per element: a value of the dynamic map next to it, times the block's element of largest magnitude.

        x = s q[code],  s the element of the largest magnitude in its block, q the map

    Decade i = 0 ... 6, from 10^(i-7) to 10^(i-6), is cut into 2^i equal parts (`signed=False`: 2^(i+1)). The values of
    the map are the centers of these parts, their negatives if `signed`, 0 and 1. s has the sign of its element, which
    is thus stored exactly. Without `signed`, numbers > 0 never become 0: a second moment of 0 would give an unlimited
    step.

    Args:
      block: the length of blocks along the last axis.
      signed: False for numbers >= 0, such as second moments.
      stochastic: whether to round stochastically: to one of the two neighboring values, so that the mean is right; None
        for signed numbers only. Rounded to nearest, an average that changes by less than half the spacing of values in
        a step never changes: second moments do not move, and first moments do not end when gradients do. `encode` then
        needs a key, and rounds to nearest without one. The bits of an element depend on the key and its position in
        the whole array. No signed number is more than doubled: below half of the smallest value, it becomes 0.

    Reference: Dettmers et al. 2021, arXiv:2110.02861, where s is positive.
    """

    block: int = 256
    signed: bool = True
    stochastic: bool | None = None
    name: ClassVar[str] = "int8"

    @property
    def turned(self) -> bool:
        return self.signed

    @property
    def sparse(self) -> tuple[float, ...]:
        return 5.5 * 10.0**-DECADES, 32.5 * 10.0**-DECADES

    def codes(self, x: jax.Array, chance: Any) -> jax.Array:
        if self.signed:
            return signed_codes(x, DECADES, chance)
        rank = jnp.clip(jnp.floor(rank_of(x, DECADES, 2) + chance), 2, 2 ** (DECADES + 1))
        return jnp.where(x > 0, rank - 1, 0).astype(jnp.int32).astype(jnp.uint8)

    def ratios(self, codes: jax.Array) -> jax.Array:
        if self.signed:
            return signed_ratios(codes, DECADES)
        return value_of_rank(codes.astype(jnp.int32).astype(jnp.float32) + 1, DECADES, 2)

    def error_bound(self, block_max: float) -> float:
        parts = 2 ** (DECADES - 1) if self.signed else 2**DECADES
        return ((0.9 if self.stochastic else 0.45) / parts + 2e-7) * block_max + TINY


def signed_codes(x: jax.Array, decades: int, chance: Any) -> jax.Array:
    """Positions in the sorted map, in which 2^decades - 1 values lie below 0 and 2^decades above."""
    middle = 2**decades - 1
    rank = jnp.minimum(jnp.floor(rank_of(jnp.abs(x), decades, 1) + chance), jnp.where(x < 0, middle, middle + 1))
    place = jnp.where(x < 0, -rank, rank) + middle
    return place.astype(jnp.int32).astype(jnp.uint8)


def signed_ratios(codes: jax.Array, decades: int) -> jax.Array:
    place = codes.astype(jnp.int32).astype(jnp.float32) - (2**decades - 1)
    return jnp.copysign(value_of_rank(jnp.abs(place), decades, 1), place)
