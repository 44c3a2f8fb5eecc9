# SPDX-License-Identifier: Apache-2.0
"""Where gradtx's projections, microbatches, assignments, matrix functions and Muon differ from those of optax 0.2.8."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt

TREE = {"a": jnp.asarray([1.0, -2.0, 3.0]), "b": jnp.asarray(0.5)}
X = jnp.arange(8.0)
theirs, micro = optax.projections, optax.microbatching

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_boxes_of_trees():
    with pytest.raises(ValueError):
        theirs.projection_hypercube(TREE)
    with pytest.raises(ValueError):
        theirs.projection_box(TREE, -1.0, 1.0)
    np.testing.assert_array_equal(gt.projections.projection_hypercube(TREE)["a"], [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(gt.projections.projection_box(TREE, -1.0, 1.0)["a"], [1.0, -1.0, 1.0])


def test_spheres_and_degenerate_sets():
    x = jnp.asarray([0.0, 0.2])
    assert np.abs(theirs.projection_l1_sphere(x)).sum() < 0.7
    np.testing.assert_allclose(np.abs(gt.projections.projection_l1_sphere(x)).sum(), 1.0, rtol=1e-6)
    assert np.isnan(theirs.projection_l2_sphere(0 * x)).all()
    np.testing.assert_allclose(np.linalg.norm(gt.projections.projection_l2_sphere(0 * x)), 1.0, rtol=1e-6)
    assert np.isnan(theirs.projection_vector(x, 0 * x)).all() and np.isnan(theirs.projection_simplex(x, 0.0)).all()
    np.testing.assert_array_equal(gt.projections.projection_vector(x, 0 * x), 0)
    np.testing.assert_array_equal(gt.projections.projection_simplex(x, 0.0), 0)
    large = jnp.asarray([1e30, 0.0])
    np.testing.assert_array_equal(theirs.projection_l2_ball(large), 0)
    np.testing.assert_array_equal(gt.projections.projection_l2_ball(large), [1.0, 0.0])
    assert np.any(theirs.projection_simplex(TREE["a"], -1.0) < 0)
    with pytest.raises(ValueError, match="scale must be"):
        gt.projections.projection_simplex(TREE["a"], -1.0)
    low = TREE["a"].astype(jnp.bfloat16)
    assert theirs.projection_simplex(low).dtype == jnp.float32
    with pytest.raises(TypeError):
        theirs.projection_l1_ball(low)
    assert gt.projections.projection_simplex(low).dtype == gt.projections.projection_l1_ball(low).dtype == jnp.bfloat16


def test_microbatches():
    def run(lib, kind, f=jnp.mean, x=X, n=3, size=2):
        return lib.microbatch(f, 0, size, lib.AccumulationType[kind], num_real_microbatches=n)(x)

    real = X[np.arange(8) % 4 < 3]
    np.testing.assert_allclose(run(micro, "RUNNING_MEAN"), real.mean(), rtol=1e-6)
    np.testing.assert_allclose(run(micro, "MEAN"), real.mean() * 3 / 4, rtol=1e-6)
    np.testing.assert_allclose(run(gt.microbatching, "MEAN"), real.mean(), rtol=1e-6)
    ones = jnp.ones(600, jnp.bfloat16)
    assert run(micro, "SUM", jnp.sum, ones, None, 1) == 256
    assert run(gt.microbatching, "SUM", jnp.sum, ones, None, 1) == 600
    assert np.isnan(run(micro, "SUM", n=9))
    with pytest.raises(ValueError, match="between 0 and 4"):
        run(gt.microbatching, "SUM", n=9)
    with pytest.raises(ValueError, match="in_axes"):
        micro.micro_vmap(jnp.multiply, microbatch_size=2)(X, X)
    np.testing.assert_array_equal(gt.microbatching.micro_vmap(jnp.multiply, microbatch_size=2)(X, X), X * X)


def test_assignments():
    c = jax.random.normal(jax.random.key(1), (3, 3))
    assert np.any(np.diff(optax.assignment.hungarian_algorithm(c)[0]) < 0)
    assert np.all(np.diff(gt.assignment.hungarian_algorithm(c)[0]) > 0)
    broken = c.at[0, 0].set(jnp.nan)
    optax.assignment.hungarian_algorithm(broken)
    with pytest.raises(ValueError, match="no NaN"):
        gt.assignment.hungarian_algorithm(broken)


@pytest.mark.filterwarnings("ignore:The function:DeprecationWarning")
def test_matrices_of_zeros_and_trees_of_vectors():
    zero = jnp.zeros((2, 2))
    assert np.isnan(optax.power_iteration(zero)[0]) and gt.numerics.power_iteration(zero)[0] == 0
    assert np.isnan(optax.matrix_inverse_pth_root(zero, 2)[0]).all()
    np.testing.assert_allclose(gt.numerics.matrix_inverse_pth_root(zero, 2)[0], 1000 * np.eye(2), rtol=1e-2, atol=1e-2)

    def loss(params, inputs, targets):
        return params["b"] * jnp.sum(params["a"] ** 3)

    with pytest.raises(TypeError):
        optax.second_order.hvp(loss, TREE, TREE, None, None)
    found = gt.compat.optax.second_order.hvp(loss, TREE, TREE, None, None)
    np.testing.assert_allclose(found["a"], 9 * TREE["a"] ** 2 * 0.5, rtol=1e-5)


def test_muon():
    params = {"w": jnp.ones((4, 3))}
    grads = {"w": jax.random.normal(jax.random.key(0), (4, 3))}
    tx = optax.contrib.scale_by_muon()
    with pytest.raises(ValueError):
        tx.update(grads, tx.init(params), params)
    assert gt.scale_by_muon().update(grads, gt.scale_by_muon().init(params), params)[0]["w"].shape == (4, 3)

    stack = jax.random.normal(jax.random.key(1), (2, 3, 4)) * jnp.asarray([1.0, 5.0])[:, None, None]

    def first(lib, numbers, of=stack):
        tx = lib(0.1, adaptive=True, muon_weight_dimension_numbers=numbers)
        return np.asarray(tx.update(of, tx.init(of), of)[0])

    Numbers = optax.contrib.MuonDimensionNumbers  # noqa: N806  # a class
    alone = np.stack([first(optax.contrib.muon, Numbers(0, 1), x) for x in stack])
    assert np.abs(first(optax.contrib.muon, Numbers(1, 2)) - alone).max() > 0.1
    np.testing.assert_allclose(first(gt.muon, gt.MuonDimensionNumbers(1, 2)), alone, atol=1e-4)

    low = jnp.ones((4, 3), jnp.bfloat16)
    theirs, ours = (
        tx.init(low).inner_states["muon"].inner_state[0].mu for tx in (optax.contrib.muon(0.1), gt.muon(0.1))
    )
    assert (theirs.dtype, ours.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize("preconditioning", ["schatten", "aol"])
def test_where_muon_adds_eps(preconditioning):
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)}

    def updates(library, eps):
        tx = library.muon(0.1, preconditioning=preconditioning, eps=eps)
        return tx.update(params, tx.init(params), params)[0]["w"]

    np.testing.assert_allclose(updates(gt, 1e-8), updates(optax.contrib, 1e-8), rtol=1e-4, atol=1e-5)
    size = float(jnp.max(jnp.abs(updates(gt, 0.5))))
    assert np.abs(updates(gt, 0.5) - updates(optax.contrib, 0.5)).max() > 0.01 * size
