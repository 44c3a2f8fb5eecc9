# SPDX-License-Identifier: Apache-2.0
"""8-bit codes, evenly spaced after a companding function that gives small numbers more of them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.precision._blockwise import TINY, Blockwise


@dataclass(frozen=True)
class companded8(Blockwise):
    """One byte per element: evenly spaced codes of 2 x / (1 + |x|) for moments, of the root for second moments.

        code = round(127 * 2 r / (1 + |r|)),  x = s code / (254 - |code|),  r = x / s
        code = round(255 sqrt(r)),            x = s (code / 255)^2           (`signed=False`)

    s is the largest magnitude of the block. Without `signed`, numbers > 0 never become 0: a second moment of 0 would
    give an unlimited step.

    Args:
      block: the length of blocks along the last axis. The paper uses 32, with 16-bit scales; the scales here are
        float32, which follow slow averages and can be below 6e-8.
      signed: False for numbers >= 0, such as second moments.
      stochastic: whether to round stochastically, see `int8`.

    Reference: FlashOptim 2026, arXiv:2602.23349.
    """

    block: int = 128
    signed: bool = True
    stochastic: bool | None = None
    name: ClassVar[str] = "companded8"

    @property
    def sparse(self) -> tuple[float, ...]:
        return (1 / 253,)

    def codes(self, x: jax.Array, chance: Any) -> jax.Array:
        if self.signed:
            size = jnp.minimum(jnp.abs(x), 1)
            bent = 254 * size / (1 + size)
            below = jnp.floor(bent)
            # The value is linear between two codes in this quantity, so that stochastic rounding is right on average.
            code = below + (bent - below) * (253 - below) / (254 - bent) if self.stochastic else bent
            code = jnp.floor(code + chance)
            return jnp.where(x < 0, -code, code).astype(jnp.int32).astype(jnp.int8)
        bent = 255 * jnp.sqrt(jnp.clip(x, 0, 1))
        below = jnp.floor(bent)
        code = below + (bent * bent - below * below) / (2 * below + 1) if self.stochastic else bent
        code = jnp.minimum(jnp.floor(code + chance), 255)
        return jnp.where(x > 0, jnp.maximum(code, 1), 0).astype(jnp.int32).astype(jnp.uint8)

    def ratios(self, codes: jax.Array) -> jax.Array:
        # Widened before abs: -128, which is never a code, would overflow in int8.
        code = codes.astype(jnp.int32).astype(jnp.float32)
        if self.signed:
            return code / (254 - jnp.abs(code))
        root = code * np.float32(1 / 255)
        return jnp.where(code == 255, 1, root * root)

    def error_bound(self, block_max: float) -> float:
        bound = (1 / 127.5 if self.signed else 1 / 255) * (1 + 2e-6) * block_max + TINY
        return 2 * bound if self.stochastic else bound
