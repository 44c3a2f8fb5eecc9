# SPDX-License-Identifier: Apache-2.0
"""Statistics of a rolling window equal NumPy's of the values it was let have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.numerics import _windows as windows

VALUES = np.random.default_rng(0).normal(size=40)


@pytest.mark.slow
def test_statistics_of_every_filling(x64):
    push = jax.jit(windows.push)
    values, filled, kept = jnp.zeros(7), jnp.int32(0), []
    for i, x in enumerate(VALUES):
        let_in = i % 3 != 2
        values, filled = push(values, filled, x if let_in else np.nan, let_in)
        kept += [x] if let_in else []
        last = np.array(kept[-7:])
        assert int(filled) == len(last)
        np.testing.assert_array_equal(np.asarray(values)[7 - len(last) :], last)
        np.testing.assert_allclose(windows.mean_and_std(values, filled), [last.mean(), last.std()], atol=1e-14)
        for q in (0.0, 0.1, 0.5, 0.77, 1.0):
            np.testing.assert_allclose(windows.quantile(values, filled, q), np.quantile(last, q), rtol=1e-13)
        median = np.median(last)
        mad = 1.482602218505602 * np.median(np.abs(last - median))
        np.testing.assert_allclose(windows.median_and_mad(values, filled), [median, mad], atol=1e-14)


def test_the_scaled_mad_of_normal_values_is_their_deviation():
    x = jnp.asarray(np.random.default_rng(1).normal(2.0, 3.0, size=100_000), jnp.float32)
    np.testing.assert_allclose(windows.median_and_mad(x, jnp.int32(x.size)), [2.0, 3.0], rtol=0.02)


def test_an_empty_window_says_zero():
    values, filled = jnp.zeros(3), jnp.int32(0)
    for number in (*windows.mean_and_std(values, filled), *windows.median_and_mad(values, filled)):
        assert number == 0


def test_a_window_of_one():
    values, filled = windows.push(jnp.zeros(1), jnp.int32(0), jnp.float32(3.0))
    values, filled = windows.push(values, filled, jnp.float32(4.0))
    assert (int(filled), float(values[0]), float(windows.quantile(values, filled, 0.9))) == (1, 4.0, 4.0)


def test_types_stay():
    values, filled = windows.push(jnp.zeros(3, jnp.bfloat16), jnp.int32(0), jnp.float32(1.0), jnp.asarray(True))
    assert (values.dtype, filled.dtype) == (jnp.bfloat16, jnp.int32)


@pytest.mark.parametrize(
    ("x", "center", "spread", "z"),
    [
        (4.0, 1.0, 2.0, 1.5),
        (-2.0, 1.0, 2.0, -1.5),
        (0.0, 0.0, 0.0, 0.0),
        (1.0, 0.0, 0.0, np.inf),
        (-1.0, 0.0, 0.0, -np.inf),
        (np.inf, 1.0, 2.0, np.inf),
        (np.nan, 1.0, 2.0, np.nan),
        (np.nan, 0.0, 0.0, np.nan),
    ],
)
def test_z_score(x, center, spread, z):
    np.testing.assert_array_equal(windows.z_score(*map(jnp.float32, (x, center, spread))), np.float32(z))


def test_among_equal_values_the_last_digit_is_no_spike():
    center, spread = windows.mean_and_std(jnp.full(5, 0.1, jnp.float32), jnp.int32(5))
    digit = np.nextafter(np.float32(0.1), np.float32(1))
    assert abs(windows.z_score(jnp.float32(digit), center, spread)) < 1
    assert digit < windows.limit(center, spread, 6.0) < 0.1001
    assert windows.z_score(jnp.float32(0.101), center, spread) > 6
