# SPDX-License-Identifier: Apache-2.0
"""Numbers of whole trees, against NumPy in double precision and optax."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import tree

pytestmark = pytest.mark.usefixtures("standard_promotion")

RNG = np.random.default_rng(1)
X = {"a": jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32), "b": (jnp.asarray(RNG.normal(), jnp.float32), None)}
Y = jax.tree.map(lambda x: x * 0.5 + 1, X)


def flat(x):
    return np.concatenate([np.ravel(np.float64(leaf)) for leaf in jax.tree.leaves(x)])


CALLS = [
    ("sum", {}, np.sum),
    ("sum", {"associative_reduction": True}, np.sum),
    ("max", {}, np.max),
    ("min", {}, np.min),
    ("size", {}, np.size),
    ("norm", {}, np.linalg.norm),
    ("norm", {"ord": 2}, np.linalg.norm),
    ("norm", {"ord": 1}, lambda x: np.sum(np.abs(x))),
    ("norm", {"ord": jnp.inf}, lambda x: np.max(np.abs(x))),
    ("norm", {"ord": "inf", "squared": True}, lambda x: np.max(np.abs(x)) ** 2),
    ("norm", {"ord": 1, "squared": True}, lambda x: np.sum(np.abs(x)) ** 2),
    ("norm", {"squared": True}, lambda x: np.sum(x**2)),
]


@pytest.mark.parametrize(("name", "kwargs", "formula"), CALLS, ids=[f"{c[0]}-{c[1]}" for c in CALLS])
def test_numbers(name, kwargs, formula):
    found = getattr(tree, name)(X, **kwargs)
    np.testing.assert_allclose(found, formula(flat(X)), rtol=1e-6)
    np.testing.assert_allclose(found, getattr(optax.tree, name)(X, **kwargs), rtol=1e-6)


def test_vdot():
    np.testing.assert_allclose(tree.vdot(X, Y), flat(X) @ flat(Y), rtol=1e-6)
    np.testing.assert_allclose(tree.vdot(X, Y), optax.tree.vdot(X, Y), rtol=1e-6)
    z, w = jnp.asarray([1j, 2.0]), jnp.asarray([1j, 3.0])
    assert tree.vdot(z, w) == optax.tree.vdot(z, w) == 7
    assert tree.vdot(jnp.asarray([1, 2]), jnp.asarray([2, 3])) == 8
    assert tree.vdot({"a": None, "b": jnp.ones(2)}, {"a": jnp.ones(3), "b": jnp.ones(2)}) == 2
    with pytest.raises(ValueError, match=r"tree_x has a leaf of shape \(2,\) where tree_y has \(3,\)"):
        tree.vdot(jnp.ones(2), jnp.ones(3))


@pytest.mark.parametrize("of_nothing", [{}, {"a": None}, {"a": jnp.zeros((0,))}])
def test_nothing(of_nothing):
    assert tree.sum(of_nothing) == tree.norm(of_nothing) == tree.norm(of_nothing, ord=1) == 0
    assert tree.norm(of_nothing, ord=jnp.inf) == 0
    assert tree.max(of_nothing) == -jnp.inf and tree.min(of_nothing) == jnp.inf
    assert tree.size(of_nothing) == 0 and tree.vdot(of_nothing, of_nothing) == 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_reduced_in_float32(dtype):
    x = {"a": jnp.full(4096, 300.0, dtype)}
    for found, expected in [
        (tree.norm(x), 300 * 64),
        (tree.norm(x, squared=True), 4096 * 9e4),
        (tree.norm(x, ord=1), 4096 * 300),
        (tree.sum(x), 4096 * 300),
        (tree.vdot(x, x), 4096 * 9e4),
        (tree.max(x), 300),
    ]:
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_double_precision(x64):
    x = {"a": jnp.full(3, 1e200)}
    np.testing.assert_allclose(tree.norm(x, ord=jnp.inf), 1e200)
    assert tree.sum(x).dtype == jnp.float64


def test_derivative_of_the_norm_at_zero():
    np.testing.assert_array_equal(jax.grad(tree.norm)(jnp.zeros(2)), [0, 0])


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm: ord must be None, 1, 2, inf or 'inf', got 3"):
        tree.norm(X, ord=3)


def test_allclose():
    assert tree.allclose(X, X) and not tree.allclose(X, Y) and jax.jit(tree.allclose)(X, X)
    assert not tree.allclose({"a": jnp.ones(2)}, {"a": jnp.ones((1, 2))})
    assert not tree.allclose({"a": jnp.ones(2)}, {"a": None})
    nan = {"a": jnp.asarray([math.nan])}
    assert tree.allclose(nan, nan, equal_nan=True) and not tree.allclose(nan, nan)
    for rtol in (1e-5, 0.2):
        a, b = jnp.asarray([1.0]), jnp.asarray([1.1])
        assert tree.allclose(a, b, rtol=rtol) == optax.tree.allclose(a, b, rtol=rtol)
    with pytest.raises(ValueError, match="the trees do not match"):
        tree.allclose(X, {"a": jnp.ones(1)})


LOW, HIGH, ODD = jnp.ones(1, jnp.bfloat16), jnp.ones(1), jnp.ones(1, jnp.float16)


@pytest.mark.parametrize("handler", ["promote", "highest", "lowest"])
@pytest.mark.parametrize("x", [{"a": LOW, "b": HIGH}, {"a": LOW}, {}, {"a": jnp.ones(1, jnp.int32), "b": HIGH}])
def test_dtype(x, handler):
    assert tree.dtype(x, handler) == optax.tree.dtype(x, handler)


def test_dtypes_that_differ():
    with pytest.raises(ValueError, match=r"dtype: the leaves must have one dtype, got bfloat16 at \['a'\], float32 at"):
        tree.dtype({"a": LOW, "b": HIGH})
    for handler in ("highest", "lowest"):
        with pytest.raises(ValueError, match=f"none of bfloat16, float16 is the {handler}"):
            tree.dtype({"a": LOW, "b": ODD}, handler)
    assert tree.dtype({"a": LOW, "b": ODD}, "promote") == jnp.float32
    with pytest.raises(ValueError, match="mixed_dtype_handler must be one of"):
        tree.dtype({}, "widest")


def test_global_norm_takes_updates_by_name():
    np.testing.assert_array_equal(gradtx.global_norm(updates=X), tree.norm(X))
