# SPDX-License-Identifier: Apache-2.0
"""Norms with a floor: values and derivatives, also where squares leave the range of the dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.numerics._safe import safe_sqrt, shrink_factor

pytestmark = pytest.mark.usefixtures("standard_promotion")

X = np.asarray([[3.0, 4.0, -1.0], [0.5, -2.0, 0.0]])
KINDS = [
    {},
    {"keepdims": True},
    {"ord": 1, "axis": 0},
    {"ord": 2, "axis": 1, "keepdims": True},
    {"ord": np.inf, "axis": -1},
    {"ord": 0, "axis": 0},
    {"ord": "fro"},
    {"ord": 2},
    {"ord": "nuc", "axis": (0, 1)},
    {"axis": (0, 1), "keepdims": True},
    {"axis": 0},
]


def kinds_in_numpy(kind):
    # Without axis and ord, NumPy flattens.
    return np.linalg.norm(X, **kind)


@pytest.mark.parametrize("least", [0.0, 1.5, 100.0])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_values(kind, least):
    x = jnp.asarray(X, jnp.float32)
    found = gt.numerics.safe_norm(x, least, **kind)
    np.testing.assert_allclose(found, np.maximum(kinds_in_numpy(kind), least), rtol=1e-6)
    np.testing.assert_allclose(found, optax.safe_norm(x, least, **kind), rtol=1e-5)
    assert found.shape == optax.safe_norm(x, least, **kind).shape


@pytest.mark.slow
def test_derivatives():
    x = jnp.asarray([3.0, 4.0])
    np.testing.assert_allclose(jax.grad(gt.numerics.safe_norm)(x, 0.1), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(gt.numerics.safe_root_mean_squares)(x, 0.1), x / 2 / 12.5**0.5, rtol=1e-6)
    for f in (gt.numerics.safe_norm, gt.numerics.safe_root_mean_squares):
        for least in (0.0, 0.1):
            np.testing.assert_array_equal(jax.grad(f)(jnp.zeros(2), least), [0, 0])
        np.testing.assert_array_equal(jax.grad(f)(x, 100.0), [0, 0])


def test_vectors_of_a_matrix_have_derivatives_of_their_own():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    found = jax.grad(lambda y: jnp.sum(gt.numerics.safe_norm(y, 0.0, axis=1)))(x)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(("dtype", "size"), [(jnp.float32, 1e30), (jnp.float32, 1e-30), (jnp.float16, 300.0)])
def test_extremes(dtype, size):
    x = jnp.full(4, size, dtype)
    exact = np.float64(x[0])
    norm, slope = jax.value_and_grad(gt.numerics.safe_norm)(x, 0.0)
    np.testing.assert_allclose(np.float64(norm), 2 * exact, rtol=1e-6)
    np.testing.assert_allclose(slope, np.full(4, 0.5), rtol=1e-3)
    rms, slope = jax.value_and_grad(gt.numerics.safe_root_mean_squares)(x, 0.0)
    np.testing.assert_allclose(np.float64(rms), exact, rtol=1e-6)
    np.testing.assert_allclose(slope, np.full(4, 0.25), rtol=1e-3)
    assert norm.dtype == rms.dtype == jnp.float32
    if dtype is jnp.float16:
        assert np.isinf(optax.safe_norm(x, 0.0))


def test_complex_and_empty():
    assert gt.numerics.safe_norm(jnp.asarray([3j, 4.0]), 0.0) == 5
    np.testing.assert_allclose(gt.numerics.safe_root_mean_squares(jnp.asarray([3j, 4.0]), 0.0), 12.5**0.5)
    assert (
        gt.numerics.safe_norm(jnp.zeros((0,)), 0.5) == gt.numerics.safe_root_mean_squares(jnp.zeros((0,)), 0.5) == 0.5
    )


@pytest.mark.parametrize("least", [0.0, 10.0])
def test_root_mean_squares_as_in_optax(least):
    x = jnp.asarray(X, jnp.float32)
    np.testing.assert_allclose(
        gt.numerics.safe_root_mean_squares(x, least), max(np.sqrt(np.mean(X**2)), least), rtol=1e-6
    )
    np.testing.assert_allclose(
        gt.numerics.safe_root_mean_squares(x, least), optax.safe_root_mean_squares(x, least), rtol=1e-6
    )


def test_what_is_not_finite_stays_so():
    assert np.isinf(gt.numerics.safe_norm(jnp.asarray([jnp.inf, 1.0]), 0.0))
    assert np.isnan(gt.numerics.safe_norm(jnp.asarray([jnp.nan, 1.0]), 0.0))
    assert np.isnan(gt.numerics.safe_root_mean_squares(jnp.asarray([jnp.nan, 1.0]), 0.0))


def test_the_derivative_of_a_root_is_zero_at_zero_only():
    found = jax.vmap(jax.grad(safe_sqrt))(jnp.asarray([0.0, 0.25, 4.0, 1e-30]))
    np.testing.assert_allclose(found, [0.0, 1.0, 0.25, 0.5e15], rtol=1e-6)


@pytest.mark.parametrize("make", [float, jnp.float32])
def test_factors_to_a_limit_that_is_zero_or_infinite(make):
    sizes = jnp.asarray([0.0, 0.5, 2.0])
    expected = {0.0: [1, 0, 0], 1.0: [1, 1, 0.5], np.inf: [1, 1, 1]}
    assert {limit: shrink_factor(sizes, make(limit)).tolist() for limit in expected} == expected
