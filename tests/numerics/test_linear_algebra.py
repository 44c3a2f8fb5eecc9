# SPDX-License-Identifier: Apache-2.0
"""Matrices: against NumPy and scipy in float64, ill-conditioned, singular, padded and extreme ones, and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx.numerics._lanczos import lanczos, tridiagonal_spectrum
from gradtx.numerics._linear_algebra import (
    matrix_inverse_pth_root,
    matrix_inverse_pth_root_eigh,
    nnls,
    power_iteration,
)

RNG = np.random.default_rng(0)
ROOTS = [matrix_inverse_pth_root, matrix_inverse_pth_root_eigh]


def with_eigenvalues(values):
    q, _ = np.linalg.qr(RNG.normal(size=(len(values), len(values))))
    return (q * values) @ q.T


def exact_root(a, p, ridge):
    values, vectors = np.linalg.eigh(np.asarray(a, np.float64))
    return (vectors * (np.maximum(values, 0) + ridge * values[-1]) ** (-1 / p)) @ vectors.T


def relative(got, want):
    return np.linalg.norm(np.asarray(got) - want) / np.linalg.norm(want)


@pytest.mark.slow
@pytest.mark.parametrize("f", ROOTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
def test_inverse_roots_of_ill_conditioned_matrices(f, p, x64):
    """Condition 1e8 in float64, 1e4 in float32."""
    for dtype, condition, ridge, tolerance in ((np.float64, 1e8, 1e-12, 1e-6), (np.float32, 1e4, 1e-6, 2e-2)):
        a = with_eigenvalues(np.geomspace(1 / condition, 1, 12)) * 3.0
        got, error = f(jnp.asarray(a, dtype), p, ridge_epsilon=ridge)
        assert got.dtype == error.dtype == dtype
        assert relative(got, exact_root(a, p, ridge)) < tolerance
        assert error < 1e-4


@pytest.mark.parametrize("f", ROOTS, ids=lambda f: f.__name__)
def test_inverse_roots_of_singular_padded_and_extreme_matrices(f):
    a = with_eigenvalues([0.0, 0.0, 1.0, 2.0, 5.0])
    got, _ = f(jnp.asarray(a, jnp.float32), 2, ridge_epsilon=1e-3)
    assert relative(got, exact_root(a, 2, 1e-3)) < 1e-3
    small = with_eigenvalues([1.0, 2.0, 4.0])
    padded = np.zeros((6, 6))
    padded[:3, :3] = small
    got, _ = f(jnp.asarray(padded, jnp.float32), 4)
    np.testing.assert_allclose(got[:3, :3], exact_root(small, 4, 1e-6), atol=1e-4)
    np.testing.assert_allclose(got[:3, 3:], 0, atol=1e-4)
    for size in (1e-30, 1e30):
        got, _ = f(jnp.asarray(small * size, jnp.float32), 4)
        assert relative(got, exact_root(small * size, 4, 1e-6)) < 1e-4
    got, error = f(jnp.zeros((3, 3)), 2, ridge_epsilon=1e-4)
    np.testing.assert_allclose(got, 100 * np.eye(3), rtol=1e-3, atol=1e-3)
    assert np.isfinite(error)
    np.testing.assert_allclose(f(jnp.asarray([[16.0]]), 4)[0], [[0.5]], rtol=1e-5)
    assert f(jnp.asarray(small, jnp.bfloat16), 2)[0].dtype == jnp.float32
    batch = jnp.asarray([small, 2 * small], jnp.float32)
    mapped, _ = jax.jit(jax.vmap(lambda a: f(a, 2)))(batch)
    assert relative(mapped[1], exact_root(2 * small, 2, 1e-6)) < 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_inverse_roots_of_optax():
    a = jnp.asarray(with_eigenvalues([0.5, 1.0, 3.0, 7.0]), jnp.float32)
    for p in (1, 2, 4):
        for ridge in (1e-6, 0.5):
            got, error = matrix_inverse_pth_root(a, p, ridge_epsilon=ridge)
            want, _ = optax.matrix_inverse_pth_root(a, p, ridge_epsilon=ridge)
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
            assert error < 1e-5


def test_power_iteration():
    values = [-7.0, 1.0, 2.0, 5.0]
    a = jnp.asarray(with_eigenvalues(values), jnp.float32)
    value, v = power_iteration(a)
    np.testing.assert_allclose(value, -7, rtol=1e-5)
    np.testing.assert_allclose(a @ v, -7 * v, atol=1e-3)
    np.testing.assert_allclose(jnp.linalg.norm(v), 1, rtol=1e-5)
    np.testing.assert_allclose(power_iteration(a, key=jax.random.key(5))[0], -7, rtol=1e-5)
    np.testing.assert_allclose(power_iteration(a, v0=jnp.ones(4))[0], -7, rtol=1e-5)
    value, tree = power_iteration(lambda t: {"x": 3 * t["x"], "y": -t["y"]}, v0={"x": jnp.ones(2), "y": jnp.ones([])})
    np.testing.assert_allclose(value, 3, rtol=1e-5)
    np.testing.assert_allclose(tree["x"], np.sqrt(0.5), rtol=1e-3)
    value, v = power_iteration(jnp.zeros((3, 3)))
    assert value == 0 and abs(jnp.linalg.norm(v) - 1) < 1e-5
    for size in (1e-30, 1e30):
        np.testing.assert_allclose(power_iteration(a * size)[0], -7 * size, rtol=1e-4)
    few, _ = power_iteration(a, num_iters=1, v0=jnp.ones(4))
    np.testing.assert_allclose(few, jnp.ones(4) @ a @ jnp.ones(4) / 4, rtol=1e-4)  # Rayleigh's quotient


def test_lanczos(x64):
    a = with_eigenvalues(np.linspace(-3, 10, 40) ** 3)
    d, e, v = lanczos(lambda x: jnp.asarray(a) @ x, jnp.asarray(RNG.normal(size=40)), 40)
    np.testing.assert_allclose(v.T @ v, np.eye(40), atol=1e-10)
    np.testing.assert_allclose(v @ (np.diag(d) + np.diag(e, 1) + np.diag(e, -1)) @ v.T, a, atol=1e-8)
    start = RNG.normal(size=40)
    d, e, _ = lanczos(lambda x: jnp.asarray(a) @ x, jnp.asarray(start), 8)
    nodes, weights = tridiagonal_spectrum(d, e)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    for power in (1, 5, 15):  # a Gauss quadrature
        want = start @ np.linalg.matrix_power(a / 1000, power) @ start / (start @ start)
        np.testing.assert_allclose((weights * (nodes / 1000) ** power).sum(), want, rtol=1e-9)


def test_lanczos_breaks_down_quietly():
    a = jnp.diag(jnp.asarray([5.0, 5.0, 2.0, 2.0]))
    d, e, v = lanczos(lambda x: a @ x, jnp.ones(4), 4)
    nodes, weights = tridiagonal_spectrum(d, e)
    np.testing.assert_allclose([nodes.min(), nodes.max()], [2, 5], rtol=1e-5)
    np.testing.assert_allclose((weights * nodes).sum(), 3.5, rtol=1e-5)
    assert np.all(np.isfinite(v))


def test_nnls(x64):
    import scipy.optimize

    for shape in ((8, 5), (5, 8), (30, 10)):
        a, b = RNG.normal(size=shape), RNG.normal(size=shape[0])
        want, residual = scipy.optimize.nnls(a, b)
        got = np.asarray(jax.jit(nnls, static_argnums=2)(jnp.asarray(a), jnp.asarray(b), 3000))
        assert np.all(got >= 0)
        np.testing.assert_allclose(np.linalg.norm(a @ got - b), residual, atol=1e-6)
        if shape[0] > shape[1]:
            np.testing.assert_allclose(got, want, atol=1e-6)
    scaled = a * np.geomspace(1, 1e-2, 10)  # condition 1e4 in AᵀA and more
    want, _ = scipy.optimize.nnls(scaled, b)
    got = nnls(jnp.asarray(scaled), jnp.asarray(b), 100_000)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.usefixtures("standard_promotion")
def test_nnls_of_optax_and_edges():
    a, b = (jnp.asarray(x, jnp.float32) for x in (RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))))
    np.testing.assert_allclose(nnls(a, b, 300), optax.nnls(a, b, 300), atol=1e-5)
    np.testing.assert_allclose(nnls(a, b[:, 0], 1), optax.nnls(a, b[:, 0], 1), atol=1e-6)
    np.testing.assert_allclose(nnls(a, b[:, 0], 1, L=20.0), optax.nnls(a, b[:, 0], 1, L=20.0), atol=1e-6)
    np.testing.assert_allclose(nnls(a, b, 40, unroll=4), nnls(a, b, 40), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(nnls(0 * a, b, 5), 0)
    assert nnls(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), 3).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: power_iteration(jnp.ones((2, 3))), r"square, got shape \(2, 3\)"),
        (lambda: power_iteration(lambda v: v), "needs v0"),
        (lambda: matrix_inverse_pth_root(jnp.ones(3), 2), "square"),
        (lambda: matrix_inverse_pth_root(jnp.eye(3), 0), "p must be a whole number >= 1"),
        (lambda: matrix_inverse_pth_root_eigh(jnp.eye(3), 1.5), "p must be a whole number >= 1"),
        (lambda: nnls(jnp.ones((2, 3)), jnp.ones(3), 1), r"got \(2, 3\) and \(3,\)"),
        (lambda: lanczos(lambda v: v, jnp.ones(3), 0), "num_iters must be a whole number >= 1"),
    ],
)
def test_errors(call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call()
