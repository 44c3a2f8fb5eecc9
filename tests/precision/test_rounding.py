# SPDX-License-Identifier: Apache-2.0
"""Rounding to bfloat16 and float16 against NumPy's casts, and updates that land where they should."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import gradtx
from gradtx.numerics._rounding import (
    difference_to,
    from_order,
    order,
    round_at_random,
    round_half_up,
    round_to_nearest,
    ulp,
)

NUMPY = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
SMALLEST = 2.0**-126
"""The smallest normal float32; the CPU takes what is smaller for 0."""

each_dtype = pytest.mark.parametrize("dtype", NUMPY)


def floats(n: int) -> np.ndarray:
    """Random bits and numbers of common sizes, infinities and NaN among them."""
    random = np.random.default_rng(0)
    of_bits = random.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)
    common = random.normal(size=n) * 10.0 ** random.uniform(-9, 5, n)
    halves = np.float32(1) + np.arange(-64, 64).astype(np.float32) * np.float32(2.0**-13)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 65504, 65520, 1e5, 3.3895e38, 3.4028e38, 2.0**-24, 2.0**-25])
    x = np.concatenate([of_bits, common.astype(np.float32), halves, special.astype(np.float32)])
    return x[(np.abs(x) >= SMALLEST) | (x == 0) | np.isnan(x)]


def cast(x: np.ndarray, dtype: str) -> np.ndarray:
    """NumPy's cast and back, with the largest number instead of infinity."""
    with np.errstate(all="ignore"):
        found = x.astype(NUMPY[dtype]).astype(np.float32)
    largest = np.float32(ml_dtypes.finfo(NUMPY[dtype]).max)
    return np.where(np.isfinite(x), np.clip(found, -largest, largest), x)


def pairs(dtype: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random finite numbers of a dtype, of all sizes and signs, with finite differences."""
    random = np.random.default_rng(1)
    p, q = (random.integers(0, 2**16, n, dtype=np.uint16).view(NUMPY[dtype]) for _ in range(2))
    with np.errstate(all="ignore"):
        wide = [x.astype(np.float32) for x in (p, q)]
    good = np.all([np.isfinite(x) & ((np.abs(x) >= 2.0**-100) | (x == 0)) for x in wide], axis=0)
    with np.errstate(all="ignore"):
        good &= np.isfinite(wide[1] - wide[0])
    return p[good], q[good]


@each_dtype
def test_to_nearest_is_a_cast(dtype: str):
    x = floats(1_000_000)
    np.testing.assert_array_equal(round_to_nearest(jnp.asarray(x), jnp.dtype(dtype)), cast(x, dtype))


def test_half_up():
    x = floats(1_000_000)
    x = x[np.isfinite(x) & (np.abs(x) < 3e38)]
    q = np.asarray(round_half_up(jnp.asarray(x)))
    np.testing.assert_array_equal(q, cast(q, "bfloat16"))
    exact, below = x.astype(np.float64), np.abs(q.astype(np.float64) - cast(x, "bfloat16"))
    is_tie = below > 0
    np.testing.assert_array_equal((q - exact)[is_tie], np.abs(q - exact)[is_tie])  # upwards
    np.testing.assert_array_equal(np.abs(q - exact), np.abs(cast(x, "bfloat16") - exact))  # as near


def test_order_has_the_order_of_the_numbers():
    x = np.sort(floats(10_000))
    x = x[np.isfinite(x)]
    n = order(jnp.asarray(x))
    assert (np.diff(np.asarray(n, np.int64))[np.diff(x) > 0] > 0).all()
    np.testing.assert_array_equal(from_order(n), x)
    assert int(order(jnp.float32(-0.0))) == 0 and int(order(jnp.nextafter(jnp.float32(1), jnp.float32(2)))) == (
        int(order(jnp.float32(1))) + 1
    )


@each_dtype
def test_ulp(dtype: str):
    x = np.abs(cast(floats(10_000), dtype))
    x = x[np.isfinite(x) & (x < float(ml_dtypes.finfo(NUMPY[dtype]).max)) & (x >= 2.0**-100)].astype(NUMPY[dtype])
    above = np.nextafter(x, NUMPY[dtype](np.inf)).astype(np.float64)
    np.testing.assert_array_equal(
        ulp(jnp.asarray(x.astype(np.float32)), jnp.dtype(dtype)), above - x.astype(np.float64)
    )


@pytest.mark.parametrize(
    "x", [1.0, 1.0 + 2**-10, -1.0 - 3 * 2**-14, 3.14159, -1e-5, 1e-3, 0.0, 65503.0, 2.0**-24 * 0.75]
)
@each_dtype
def test_the_mean_over_all_random_bits_is_the_number(dtype: str, x: float):
    """Exactly: each of the 2^16 values of the bits that decide is given once."""
    bits = jnp.arange(2**16, dtype=jnp.uint32) << 16
    wide = np.float32(x) if dtype == "bfloat16" else np.float32(np.round(x * 2.0**40) / 2**40)
    q = np.asarray(round_at_random(jnp.full(2**16, wide), jnp.dtype(dtype), bits), np.float64)
    np.testing.assert_array_equal(q, cast(q.astype(np.float32), dtype))
    near = cast(np.float32([x]), dtype)[0]
    assert len(np.unique(q)) <= 2 and (near in q or x == near)
    assert q.mean() == np.float64(wide)


@pytest.mark.slow
@each_dtype
def test_an_update_lands_where_it_should(dtype: str):
    p, q = pairs(dtype, 4_000_000)
    wide_p, wide_q = p.astype(np.float32), q.astype(np.float32)
    u, said = difference_to(jnp.asarray(wide_q), jnp.asarray(wide_p), jnp.dtype(dtype))
    landed = np.asarray(gradtx.apply_updates(jnp.asarray(p), u)).astype(np.float32)
    np.testing.assert_array_equal(landed, said)
    # Only a number that is tiny beside the last one is missed, by what float32 would miss it too.
    is_tiny = (np.abs(wide_q) < (2.0**-16 if dtype == "bfloat16" else 2.0**-13) * np.abs(wide_p)) & (wide_q != 0)
    np.testing.assert_array_equal(landed[~is_tiny], wide_q[~is_tiny])
    missed = np.abs(landed.astype(np.float64) - wide_q)
    assert (missed <= 2.0**-24 * np.abs(wide_p)).all()
    assert (~is_tiny).sum() > 1_500_000 and (np.signbit(p) != np.signbit(q)).sum() > 1_000_000
    again, _ = difference_to(jnp.asarray(wide_q), jnp.asarray(landed), jnp.dtype(dtype))
    landed = np.asarray(gradtx.apply_updates(jnp.asarray(landed.astype(NUMPY[dtype])), again)).astype(np.float32)
    is_far = np.abs(wide_q) < 2.0**-40 * np.abs(wide_p)  # further than one more step goes
    np.testing.assert_array_equal(landed[~is_far], wide_q[~is_far])


@pytest.mark.usefixtures("standard_promotion")
@each_dtype
def test_optax_lands_there_too(dtype: str):
    p, q = pairs(dtype, 1_000_000)
    u, said = difference_to(*(jnp.asarray(x.astype(np.float32)) for x in (q, p)), jnp.dtype(dtype))
    landed = optax.apply_updates(jnp.asarray(p), u)
    assert landed.dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(landed).astype(np.float32), said)
