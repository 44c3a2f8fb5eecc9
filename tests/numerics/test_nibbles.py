# SPDX-License-Identifier: Apache-2.0
"""Two codes in a byte, and back."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.numerics._nibbles import pack, packed_length, unpack


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 16, 21])
def test_packed_and_unpacked(n):
    codes = jnp.asarray(np.random.default_rng(n).integers(0, 16, (3, n)), jnp.uint8)
    packed = pack(codes, 8)
    assert packed.shape == (3, packed_length(n, 8)) == (3, n // 8 * 4 + -(-(n % 8) // 2))
    np.testing.assert_array_equal(unpack(packed, 8, n), codes)


def test_blocks_share_no_byte():
    """So blocks on several devices are packed where they are."""
    codes = jnp.arange(16, dtype=jnp.uint8)
    np.testing.assert_array_equal(pack(codes, 8)[:4], pack(codes[:8], 8))
    np.testing.assert_array_equal(pack(codes, 8)[4:], pack(codes[8:], 8))
    np.testing.assert_array_equal(pack(codes[:8], 8), [0 | 4 << 4, 1 | 5 << 4, 2 | 6 << 4, 3 | 7 << 4])
