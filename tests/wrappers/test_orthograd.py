# SPDX-License-Identifier: Apache-2.0
"""Projected gradients: orthogonal, of the old norm, and what happens where nothing is orthogonal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

ORTHOGRAD = gt.orthograd(gt.identity())


def projected(g, p):
    return np.asarray(ORTHOGRAD.update(jnp.asarray(g), ORTHOGRAD.init(jnp.asarray(p)), jnp.asarray(p))[0])


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e-25, 1e25), (1e25, 1e-25)])
def test_orthogonal_and_of_the_same_norm(scales):
    rng = np.random.default_rng(0)
    g, p = (np.float32(scale) * rng.normal(size=(4, 3)).astype(np.float32) for scale in scales)
    u, g, p = (np.float64(x) for x in (projected(g, p), g, p))
    size = np.linalg.norm(g)
    np.testing.assert_allclose(np.linalg.norm(u), size, rtol=1e-5)
    assert abs(np.sum(u * p)) < 1e-5 * size * np.linalg.norm(p)


def test_of_complex_parameters_the_scale_is_real():
    p, g = np.array([1 + 1j, 2 - 1j], np.complex64), np.array([0.5j, 1.0], np.complex64)
    u = projected(g, p)
    assert abs(np.sum(np.real(np.conj(p) * u))) < 1e-6
    np.testing.assert_allclose(projected(1j * p, p), 1j * p, rtol=1e-6)  # only turns p


def test_a_gradient_along_the_parameter_is_0_and_not_rounding():
    for seed in range(5):
        p = np.random.default_rng(seed).normal(size=1000).astype(np.float32)
        np.testing.assert_array_equal(projected(3.7 * p, p), np.zeros_like(p))


def test_where_there_is_nothing_to_project_on():
    for g, p in (([1.0, -2.0], [0.0, 0.0]), ([0.0, 0.0], [1.0, 2.0]), (3.0, 2.0), ([3.0], [2.0])):
        np.testing.assert_array_equal(projected(np.float32(g), np.float32(p)), np.float32(g))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_infinite_gradient_is_no_number_but_keeps_its_type(dtype):
    g = jnp.asarray([jnp.inf, 1.0], dtype)
    u, _ = ORTHOGRAD.update(g, ORTHOGRAD.init(g), jnp.ones(2, dtype))
    assert u.dtype == dtype and not np.isfinite(np.asarray(u, np.float32)).all()


def test_it_needs_parameters_and_a_transformation():
    with pytest.raises(ValueError, match="orthograd: update needs the parameters"):
        ORTHOGRAD.update(jnp.ones(2), ORTHOGRAD.init(jnp.ones(2)))
    with pytest.raises(TypeError, match="orthograd: inner must be a transformation, got the factory adam"):
        gt.orthograd(gt.adam)


@pytest.mark.slow
def test_stacked_parameters_are_projected_one_by_one():
    rng = np.random.default_rng(1)
    g, p = (jnp.asarray(rng.normal(size=(3, 4, 2)), jnp.float32) for _ in range(2))
    stacked = gt.with_roles([("**", gt.Role(stack=0))], ORTHOGRAD)
    found, _ = jax.jit(stacked.update)({"w": g}, stacked.init({"w": p}), {"w": p})
    np.testing.assert_allclose(found["w"], np.stack([projected(*x) for x in zip(g, p, strict=True)]), rtol=1e-5)
