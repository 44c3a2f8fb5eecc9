# SPDX-License-Identifier: Apache-2.0
"""8 bits, evenly spaced after a bend that gives small numbers more of them."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.precision.blocks import TINY, Blockwise, check_block


@dataclass(frozen=True)
class companded8(Blockwise):
    """One byte an element: 2 x / (1 + |x|) for moments, the square root for second moments, evenly spaced.

        code = round(127 * 2 r / (1 + |r|)),  x = s code / (254 - |code|),  r = x / s
        code = round(255 sqrt(r)),            x = s (code / 255)^2           (`signed=False`)

    s is the largest magnitude of the block. Without `signed` what is > 0 never becomes 0: a second moment of 0 would be
    an unlimited step.

    Args:
      block: the length of blocks along the last axis. The paper has 32, with scales of 16 bits; those of float32 follow
        slow averages and hold numbers below 6e-8 as well, and blocks of 64 make it the same bytes.
      signed: False for numbers >= 0, such as second moments.

    Reference: FlashOptim 2026, arXiv:2602.23349.
    """

    block: int = 64
    signed: bool = True
    name: ClassVar[str] = "companded8"

    def __post_init__(self) -> None:
        check_block(self)

    def codes(self, x: jax.Array) -> jax.Array:
        if self.signed:
            x = jnp.clip(x, -1, 1)
            return jnp.round(254 * x / (1 + jnp.abs(x))).astype(jnp.int32).astype(jnp.int8)
        code = jnp.round(255 * jnp.sqrt(jnp.clip(x, 0, 1)))
        return jnp.where(x > 0, jnp.maximum(code, 1), 0).astype(jnp.int32).astype(jnp.uint8)

    def ratios(self, codes: jax.Array) -> jax.Array:
        # 128 is no code, but must not make a number of what is read by mistake.
        code = codes.astype(jnp.int32).astype(jnp.float32)
        if self.signed:
            return code / (254 - jnp.abs(code))
        root = code * np.float32(1 / 255)
        return jnp.where(code == 255, 1, root * root)

    def error_bound(self, block_max: float) -> float:
        return (1 / 127.5 if self.signed else 1 / 255) * (1 + 2e-6) * block_max + TINY
