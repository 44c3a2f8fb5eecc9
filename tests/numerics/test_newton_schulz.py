# SPDX-License-Identifier: Apache-2.0
"""Newton-Schulz: which singular values come out, stacks, extremes, dtypes, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx.numerics import distance_from_orthogonal
from gradtx.numerics._equilibration import equilibrated, renormalized
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


CLOSE = {"dion": 0.04, "quintic5": 0.04, "polar_express8": 0.01, "cans": 0.15, "deepseek_v4": 0.01, "cubic5": 0.3}
"""How far from 1 each ends for singular values of at least 0.15 of the norm."""


@pytest.mark.parametrize("name", CLOSE)
def test_every_preset_ends_near_one(name, x64):
    """As near as the polynomials of its rows come, for the widths for which they were made."""
    rows = jnp.asarray(coefficients_of("test", name))
    u, _, vt = np.linalg.svd(RNG.normal(size=(6, 9)), full_matrices=False)
    s = np.linspace(0.15, 0.4, 6)
    s[-1] = np.sqrt(1 - np.sum(s[:-1] ** 2))
    want = s
    for a, b, c in np.asarray(rows if rows.ndim == 2 else rows[None]):
        want = a * want + b * want**3 + c * want**5
    got = orthogonalized(jnp.asarray((u * s) @ vt), rows, eps=0.0)
    np.testing.assert_allclose(got, (u * want) @ vt, atol=1e-12)
    np.testing.assert_allclose(want, 1, atol=CLOSE[name])


def test_aol_has_its_own_coefficients(x64):
    x = random(6, 9, dtype=float)
    rows = coefficients_of("test", "aol")
    u, s, vt = np.linalg.svd(x / np.sqrt(np.abs(x @ x.T).sum(1, keepdims=True)), full_matrices=False)
    for a, b, c in rows:
        s = a * s + b * s**3 + c * s**5
    np.testing.assert_allclose(orthogonalized(x, jnp.asarray(rows), 1, "aol"), (u * s) @ vt, atol=1e-6)


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_exact(shape, size):
    x = random(2, *shape) + 4 * jnp.eye(*shape)[None]  # no singular value is near 0
    exact = jax.jit(lambda x: orthogonalized(x, jnp.zeros((0, 3))))
    u, _, vt = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
    np.testing.assert_allclose(exact(size * x), u @ vt, atol=1e-5)


def test_exact_has_no_part_where_singular_values_are_zero():
    x = jnp.outer(jnp.arange(1.0, 4.0), jnp.arange(1.0, 6.0))
    exact = jax.jit(lambda x: orthogonalized(x, jnp.zeros((0, 3))))
    np.testing.assert_allclose(exact(x), x / jnp.linalg.norm(x), atol=1e-6)
    np.testing.assert_array_equal(exact(0 * x), 0)
    assert exact(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e15, 1e30, 0.0])
def test_equal_lengths_of_numbers_of_any_size(size):
    x = random(3, 4, 6)
    wide = np.asarray(x, np.float64) * size
    for sides, axes in (("output", (-2,)), ("input", (-1,)), ("both", (-2, -1))):
        want = wide
        for axis in axes:
            want = want / np.sqrt(np.sum(wide**2, axis, keepdims=True) + 1e-8)
        np.testing.assert_allclose(equilibrated(size * x, sides), want, rtol=1e-5)
    want = wide / np.sqrt(np.sum(wide**2, -2, keepdims=True) + 1e-7)
    want = want / np.sqrt(np.sum(want**2, -1, keepdims=True) + 1e-7)
    np.testing.assert_allclose(renormalized(size * x, "output_input"), want, rtol=1e-5)
    lengths = np.linalg.norm(renormalized(x, "frobenius"), axis=(-2, -1))
    np.testing.assert_allclose(lengths, 2.0, rtol=1e-6)


def test_distance_from_orthogonal():
    x, y = random(2, 3, 5), random(4, 3)
    want = [np.sqrt(np.mean((singular_values(m) ** 2 - 1) ** 2)) for m in (*x, y)]
    found = distance_from_orthogonal({"x": x, "y": y, "v": jnp.full(3, 100.0), "empty": jnp.zeros((0, 3))})
    np.testing.assert_allclose(found, max(want), rtol=1e-5)
    np.testing.assert_allclose(distance_from_orthogonal(orthogonalized(y, jnp.zeros((0, 3)))), 0, atol=1e-6)
    with pytest.raises(ValueError, match="no leaf with two axes"):
        distance_from_orthogonal({"v": jnp.ones(3)})


def test_the_distance_is_a_metric_of_muon():
    measure = gt.snapshot("orthogonality", distance_from_orthogonal)
    tx = gt.with_roles([("**", gt.Role("hidden", stack=0))], gt.chain(gt.scale_by_muon("exact"), measure))
    g = random(2, 3, 4)
    _, state = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(gt.metrics(state)["orthogonality"], 0, atol=1e-6)
