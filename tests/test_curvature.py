# SPDX-License-Identifier: Apache-2.0
"""Curvature: against dense Hessians in float64, and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import gradtx.curvature as cv
from gradtx.compat.optax import second_order

INPUTS = jnp.asarray([[1.0, 2.0, -0.5], [3.0, 4.0, 0.2], [0.5, -1.0, 1.0]])
TARGETS = jnp.asarray([1.0, 0.0, 2.0])
PARAMS = {"b": jnp.asarray(0.7), "n": None, "w": jnp.asarray([0.3, -0.4, 0.2])}


def loss(params, inputs, targets):
    return jnp.sum((jnp.tanh(inputs @ params["w"]) - targets) ** 2) * params["b"] ** 2


def at(params):
    return loss(params, INPUTS.astype(params["b"].dtype), TARGETS.astype(params["b"].dtype))


@pytest.fixture
def dense(x64):
    params = jax.tree.map(lambda x: x.astype(float), PARAMS)
    flat, unravel = ravel_pytree(params)
    return params, np.asarray(jax.hessian(lambda x: at(unravel(x)))(flat)), unravel


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


@pytest.mark.slow
def test_products_and_diagonals(dense):
    params, h, unravel = dense
    v = np.random.default_rng(0).normal(size=4)
    tree = unravel(jnp.asarray(v))
    product = cv.hessian_vector_product(at, params, tree)
    assert jax.tree.structure(product) == jax.tree.structure(params)
    np.testing.assert_allclose(flat(product), h @ v, rtol=1e-12)
    for batch_size in (1, 3, 32):
        np.testing.assert_allclose(flat(cv.hessian_diagonal(at, params, batch_size)), np.diag(h), rtol=1e-12)
    for given in (tree, jnp.asarray(v)):
        np.testing.assert_allclose(
            flat(second_order.hvp(loss, given, params, INPUTS.astype(float), TARGETS.astype(float))), h @ v
        )


def test_estimated_diagonal(dense):
    params, h, _ = dense
    key = jax.random.key(0)
    for probes in ("rademacher", "normal"):
        estimate = jax.jit(lambda k, probes=probes: cv.hutchinson_diagonal(at, params, k, 4000, probes=probes))(key)
        np.testing.assert_allclose(flat(estimate), np.diag(h), atol=0.1 * np.abs(h).max())
    separable = cv.hutchinson_diagonal(lambda p: jnp.sum(p["w"] ** 4) + p["b"] ** 2, params, key)  # exact at once
    np.testing.assert_allclose(flat(separable), flat({"b": jnp.asarray(2.0), "w": 12 * params["w"] ** 2}), rtol=1e-12)


def test_gauss_newton(dense):
    params, _, unravel = dense
    inputs = INPUTS.astype(float)

    def model(p):
        return {"out": jnp.tanh(inputs @ p["w"]) * p["b"], "b": p["b"]}

    def of_outputs(y):
        return jnp.sum(jnp.exp(y["out"])) + y["b"] ** 4

    j = np.asarray(jax.jacobian(lambda x: ravel_pytree(model(unravel(x)))[0])(ravel_pytree(params)[0]))
    out, unravel_out = ravel_pytree(model(params))
    h = np.asarray(jax.hessian(lambda y: of_outputs(unravel_out(y)))(out))
    v = np.asarray([1.0, -2.0, 0.5, 3.0])
    got = cv.gauss_newton_vector_product(model, of_outputs, params, unravel(jnp.asarray(v)))
    np.testing.assert_allclose(flat(got), j.T @ h @ j @ v, rtol=1e-12)


def test_eigenvalues(dense):
    params, h, _ = dense
    values = np.linalg.eigvalsh(h)
    value, vector = cv.top_eigenvalue(at, params, jax.random.key(1), 500, 1e-10)
    np.testing.assert_allclose(value, values[np.argmax(np.abs(values))], rtol=1e-8)
    np.testing.assert_allclose(h @ flat(vector), value * flat(vector), atol=1e-6 * abs(value))
    nodes, weights = jax.jit(lambda k: cv.hessian_spectrum(at, params, k, 4, 3))(jax.random.key(2))
    assert nodes.shape == weights.shape == (3, 4)
    np.testing.assert_allclose(nodes, np.tile(values, (3, 1)), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)
    many_nodes, many_weights = cv.hessian_spectrum(at, params, jax.random.key(3), 4, 300)
    mean = (many_nodes * many_weights).sum(1).mean()
    np.testing.assert_allclose(mean, values.mean(), atol=0.2 * np.abs(values).max())


@pytest.mark.filterwarnings("ignore:The function:DeprecationWarning")  # optax's
@pytest.mark.usefixtures("standard_promotion")
def test_numbers_of_optax():
    theirs = optax.second_order
    v = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    close = np.testing.assert_allclose
    ours, expected = (f(loss, v, PARAMS, INPUTS, TARGETS) for f in (second_order.hvp, theirs.hvp))
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    close(flat(ours), flat(expected), rtol=1e-5, atol=1e-5)
    for name in ("hessian_diag", "fisher_diag"):
        ours, expected = (getattr(m, name)(loss, PARAMS, INPUTS, TARGETS) for m in (second_order, theirs))
        close(ours, expected, rtol=1e-5, atol=1e-5)


def test_low_precision_and_errors():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    assert {x.dtype for x in jax.tree.leaves(cv.hessian_diagonal(at, params))} == {jnp.dtype(jnp.bfloat16)}
    value, vector = cv.top_eigenvalue(at, params, jax.random.key(0), 20)
    assert value.dtype == jnp.float32 and vector["w"].dtype == jnp.bfloat16
    inputs, targets = INPUTS.astype(jnp.bfloat16), TARGETS.astype(jnp.bfloat16)
    assert second_order.fisher_diag(loss, params, inputs, targets).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"shape \(4,\), got shape \(3,\)"):
        second_order.hvp(loss, jnp.ones(3), PARAMS, INPUTS, TARGETS)
    with pytest.raises(ValueError, match="batch_size"):
        cv.hessian_diagonal(at, PARAMS, 0)
    with pytest.raises(ValueError, match="num_samples"):
        cv.hutchinson_diagonal(at, PARAMS, 0, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda f, p: cv.hessian_vector_product(f, p, p),
        lambda f, p: cv.gauss_newton_vector_product(lambda p: p["w"] * 2.0, lambda y: y.sum(), p, p),
        lambda f, p: cv.hessian_diagonal(f, p),
        lambda f, p: cv.hutchinson_diagonal(f, p, 0),
        lambda f, p: cv.top_eigenvalue(f, p, jax.random.key(0)),
        lambda f, p: cv.hessian_spectrum(f, p, jax.random.key(0)),
        lambda f, p: second_order.hvp(lambda p, x, y: f(p), p, p, 0, 0),
        lambda f, p: second_order.fisher_diag(lambda p, x, y: f(p), p, 0, 0),
    ],
)
def test_whole_numbers_have_no_curvature(call):
    params = {"n": jnp.arange(3), "w": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"parameters must be floating, got int32 at \['n'\]"):
        call(lambda p: jnp.sum(p["w"] ** 2), params)
