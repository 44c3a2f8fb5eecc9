# SPDX-License-Identifier: Apache-2.0
"""Newton-Schulz: which singular values come out, stacks, extremes, dtypes, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.numerics._newton_schulz import POLAR_EXPRESS, PRECONDITIONINGS, QUINTIC, coefficients_of, orthogonalized

RNG = np.random.default_rng(0)


def random(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.normal(size=shape), dtype)


def singular_values(x):
    return np.linalg.svd(np.asarray(x, np.float64), compute_uv=False)


def coefficients(c):
    return jnp.asarray(c, jnp.float32)


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (1, 7), (7, 1), (1, 1)])
def test_singular_values_are_near_one(shape):
    x = random(*shape)
    got = singular_values(orthogonalized(x, coefficients(POLAR_EXPRESS)))
    assert np.all((got > 0.7) & (got < 1.25))
    if min(shape) > 1:
        u, s, vt = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
        got = singular_values(
            orthogonalized(jnp.asarray((u * np.linspace(0.5, 1, len(s))) @ vt, jnp.float32), coefficients(QUINTIC))
        )
        assert np.all((got > 0.6) & (got < 1.3))


def test_many_cubic_steps_are_the_polar_factor(x64):
    x = random(6, 4, dtype=float)
    u, _, vt = np.linalg.svd(np.asarray(x), full_matrices=False)
    for preconditioning in ("frobenius", "spectral", "schatten"):
        got = orthogonalized(x, jnp.asarray([1.5, -0.5, 0.0]), 60, preconditioning)  # type: ignore[arg-type]
        np.testing.assert_allclose(got, u @ vt, atol=1e-12)
        np.testing.assert_allclose(
            orthogonalized(x.T, jnp.asarray([1.5, -0.5, 0.0]), 60, preconditioning), (u @ vt).T, atol=1e-12
        )  # type: ignore[arg-type]


@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
def test_stacks_are_matrices_one_by_one(preconditioning):
    x = random(2, 3, 4, 5)
    got = jax.jit(lambda x: orthogonalized(x, coefficients(QUINTIC), 5, preconditioning))(x)
    for i in range(2):
        for j in range(3):
            one = orthogonalized(x[i, j], coefficients(QUINTIC), 5, preconditioning)
            np.testing.assert_allclose(got[i, j], one, atol=1e-5)


@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
def test_extremes(preconditioning):
    x = random(4, 6)
    like = orthogonalized(x, coefficients(QUINTIC), 5, preconditioning, 0.0)
    for size in (1e-30, 1e-15, 1e15, 1e37):
        got = orthogonalized(x * size, coefficients(QUINTIC), 5, preconditioning, 0.0)
        np.testing.assert_allclose(got, like, atol=1e-3)
    for eps in (0.0, 1e-8):
        zero = orthogonalized(jnp.zeros((4, 6)), coefficients(QUINTIC), 5, preconditioning, eps)
        np.testing.assert_array_equal(zero, 0)
    assert orthogonalized(jnp.zeros((0, 3)), coefficients(QUINTIC)).shape == (0, 3)


@pytest.mark.slow
def test_dtypes_complex_and_derivatives():
    x = random(3, 4)
    assert orthogonalized(x.astype(jnp.bfloat16), coefficients(QUINTIC)).dtype == jnp.bfloat16
    with jax.numpy_dtype_promotion("standard"):
        z = random(3, 4) + 1j * random(3, 4)
        got = np.asarray(orthogonalized(z, coefficients(POLAR_EXPRESS)))
    np.testing.assert_allclose(np.linalg.svd(got, compute_uv=False), 1, atol=0.3)
    for y in (x, jnp.zeros((3, 4))):
        assert np.all(np.isfinite(jax.grad(lambda y: jnp.sum(orthogonalized(y, coefficients(QUINTIC)) ** 3))(y)))


def test_coefficients():
    np.testing.assert_array_equal(coefficients_of("f", "quintic"), QUINTIC)
    assert coefficients_of("f", "polar_express").shape == (5, 3)
    for bad in ("cubic", (1.0, 2.0), ((1.0, 2.0),), ()):
        with pytest.raises(ValueError, match="f: ns_coeffs must"):
            coefficients_of("f", bad)
