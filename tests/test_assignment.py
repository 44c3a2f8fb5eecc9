# SPDX-License-Identifier: Apache-2.0
"""Assignments: against scipy and all permutations, for every shape and kind of costs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx.assignment as at

ALGORITHMS = [at.hungarian_algorithm, at.base_hungarian_algorithm]
SHAPES = [(1, 1), (1, 5), (5, 1), (3, 3), (4, 7), (7, 4), (20, 20), (12, 30), (30, 12)]
each = pytest.mark.parametrize("f", ALGORITHMS, ids=lambda f: f.__name__)


def cost(c, pairs):
    i, j = (np.asarray(x) for x in pairs)
    assert i.dtype == j.dtype == np.int32 and i.shape == j.shape == (min(c.shape),)
    assert len(set(i.tolist())) == len(set(j.tolist())) == len(i)
    assert np.all(np.diff(i) > 0)
    return np.asarray(c)[i, j].sum()


def cost_of_scipy(c):
    from scipy.optimize import linear_sum_assignment

    return c[linear_sum_assignment(c)].sum()


@pytest.mark.slow
@each
@pytest.mark.parametrize("shape", SHAPES)
def test_the_cost_of_scipy(f, shape, x64):
    run = jax.jit(f)
    rng = np.random.default_rng(0)
    for c in (
        rng.normal(size=shape),
        rng.integers(-3, 3, size=shape).astype(float),  # ties
        1e6 + rng.uniform(size=shape),
        np.zeros(shape),
        np.outer(np.arange(shape[0]), np.arange(shape[1])) * 1.0,
        np.sort(rng.exponential(size=shape), axis=1) ** 4,
    ):
        want = cost_of_scipy(c)
        np.testing.assert_allclose(cost(c, run(jnp.asarray(c))), want, rtol=1e-12, atol=1e-12)


@each
@pytest.mark.parametrize("shape", [(4, 4), (3, 5)])
def test_the_best_of_all_permutations(f, shape):
    rng = np.random.default_rng(1)
    batch = rng.integers(-9, 9, size=(20, *shape))
    pairs = jax.jit(jax.vmap(f))(jnp.asarray(batch))
    for k, c in enumerate(batch):
        n, m = shape
        best = min(c[range(n), list(order)].sum() for order in itertools.permutations(range(m), n))
        assert cost(c, (pairs[0][k], pairs[1][k])) == best


@pytest.mark.slow
@each
def test_the_cost_of_optax(f):
    theirs = getattr(optax.assignment, f.__name__)
    for shape in ((5, 5), (3, 6), (6, 3)):
        c = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        i, j = theirs(jnp.asarray(c))
        np.testing.assert_allclose(cost(c, f(jnp.asarray(c))), c[i, j].sum(), rtol=1e-6)


@pytest.mark.slow
@each
def test_forbidden_pairs(f):
    rng = np.random.default_rng(3)
    for _ in range(10):
        c = rng.normal(size=(6, 8)).astype(np.float32)
        c[rng.uniform(size=c.shape) < 0.5] = np.inf
        c[range(6), range(6)] = 5.0  # so that there is a way
        want = cost_of_scipy(c)
        np.testing.assert_allclose(cost(c, f(jnp.asarray(c))), want, rtol=1e-6)
    assert cost(np.full((3, 4), np.inf), f(jnp.full((3, 4), jnp.inf))) == np.inf
    blocked = np.where(np.arange(4) < 2, 1.0, np.inf) * np.ones((3, 1))  # three rows for two columns
    assert cost(blocked, f(jnp.asarray(blocked, jnp.float32))) == np.inf


@pytest.mark.slow
@each
def test_dtypes_and_edges(f):
    for dtype in (jnp.bfloat16, jnp.float16, jnp.int8, jnp.uint8, jnp.int32, bool):
        c = jnp.asarray([[1, 0], [1, 1]]).astype(dtype)
        assert cost(np.asarray(c.astype(jnp.int32)), f(c)) == 1
    large = jnp.asarray([[2**24 + 1, 2**24], [2**24, 2**24]])  # float32 would see no difference
    np.testing.assert_array_equal(f(large)[1], [1, 0])
    for shape in ((0, 3), (3, 0), (0, 0)):
        i, j = f(jnp.zeros(shape))
        assert i.shape == j.shape == (0,)
    negative = -jnp.asarray([[3e38, 1.0], [1.0, 3e38]])
    np.testing.assert_array_equal(f(negative)[1], [0, 1])


@each
def test_costs_may_be_traced_with_derivatives(f):
    def total(c):
        return jnp.sum(c[f(c)])

    c = jnp.asarray([[4.0, 1.0], [2.0, 2.0]])
    np.testing.assert_array_equal(jax.grad(total)(c), [[0, 1], [1, 0]])


@each
def test_errors(f):
    with pytest.raises(ValueError, match=r"two axes, got shape \(3,\)"):
        f(jnp.ones(3))
    with pytest.raises(TypeError, match="real"):
        f(jnp.ones((2, 2), complex))
    for bad in (jnp.nan, -jnp.inf):
        with pytest.raises(ValueError, match="no NaN"):
            f(jnp.asarray([[1.0, bad], [0.0, 1.0]]))
