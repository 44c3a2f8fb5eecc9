# SPDX-License-Identifier: Apache-2.0
"""Edges of unit-wise clipping, centralization, constraints, sums of updates, and `scale_gradient`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradtx as gt

RNG = np.random.default_rng(3)


def one_update(tx, g, p=None):
    p = g if p is None else p
    return tx.update(g, tx.init(p), p)


def array(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


# Unit-wise norms: the axes are those of optax, for every rank that it knows.


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((), ()),
        ((4,), (0,)),
        ((3, 4), (0,)),
        ((1, 4), (0, 1)),
        ((4, 1), (0, 1)),
        ((2, 3, 4), (0,)),
        ((1, 3, 4), (0,)),
        ((1, 1, 5), (0, 1, 2)),
        ((2, 3, 2, 4), (0, 1, 2)),
        ((3, 3, 1, 4), (0, 1, 2)),
        ((2, 1, 1, 1), (0, 1, 2, 3)),
        ((2, 2, 3, 2, 4), (0, 1, 2, 3)),
        ((0,), (0,)),
        ((3, 0), (0,)),
    ],
)
def test_the_axes_of_a_unit(shape, axes):
    x = array(*shape)
    found = gt.numerics.unitwise_norm(x)
    expected = np.sqrt(np.sum(np.square(np.asarray(x, np.float64)), axis=axes, keepdims=True))
    assert found.shape == shape
    np.testing.assert_allclose(found, np.broadcast_to(expected, shape), rtol=1e-6)
    np.testing.assert_allclose(found, optax.transforms.unitwise_norm(x), rtol=1e-6)


def test_more_axes_than_optax_knows_are_those_of_a_convolution():
    x = array(2, 2, 2, 2, 2, 3)
    expected = np.sqrt(np.sum(np.square(x), axis=tuple(range(5)), keepdims=True))
    np.testing.assert_allclose(gt.numerics.unitwise_norm(x), np.broadcast_to(expected, x.shape), rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), ()])
@pytest.mark.usefixtures("standard_promotion")
def test_the_axes_that_the_caller_names(axis):
    x = array(2, 3, 4)
    np.testing.assert_allclose(gt.numerics.unitwise_norm(x, axis), optax.transforms.unitwise_norm(x, axis), rtol=1e-6)


@pytest.mark.usefixtures("standard_promotion")
def test_unitwise_clip():
    g, norm, limit = array(3, 4), jnp.abs(array(3, 4)), jnp.abs(array(3, 4))
    for scale in (1.0, 1e-6):
        arguments = scale * norm, scale * limit, g
        expected = optax.transforms.unitwise_clip(*arguments)
        np.testing.assert_allclose(gt.numerics.unitwise_clip(*arguments), expected, rtol=1e-6)
    np.testing.assert_array_equal(gt.numerics.unitwise_clip(norm, norm, g), g)
    with pytest.raises(ValueError, match=r"the same shape, got \(\), \(\) and \(3, 4\)"):
        gt.numerics.unitwise_clip(jnp.ones([]), jnp.ones([]), g)


def test_adaptive_clipping_of_half_precision_is_in_float32():
    p = jnp.full((2, 3), 300.0, jnp.float16)
    u, _ = one_update(gt.adaptive_grad_clip(0.1), p * 2, p)
    np.testing.assert_allclose(u, np.full((2, 3), 30.0), rtol=1e-6)


def test_adaptive_clipping_on_a_mesh_with_explicit_axes():
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    g = array(2, 8, 4)
    expected, _ = one_update(gt.adaptive_grad_clip(0.1), g)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(g, PartitionSpec(None, "x", "y"))
        u, _ = one_update(gt.adaptive_grad_clip(0.1), sharded)
        assert jax.typeof(u).sharding == jax.typeof(sharded).sharding
        np.testing.assert_allclose(u, expected, rtol=1e-6)


def test_adaptive_clipping_has_derivatives_at_zero():
    p, tx = jnp.ones((2, 3)), gt.adaptive_grad_clip(0.1)
    slope = jax.jacobian(lambda g: one_update(tx, g, p)[0])(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(slope.reshape(6, 6), np.eye(6))


def test_adaptive_clipping_needs_parameters_and_their_axes():
    tx = gt.adaptive_grad_clip(0.1, axis=1)
    with pytest.raises(ValueError, match="adaptive_grad_clip: update needs the parameters"):
        tx.update(jnp.ones((2, 3)), tx.init(jnp.ones((2, 3))))
    with pytest.raises(ValueError, match=r"adaptive_grad_clip: at \['b'\]: there is no axis 1 in the shape \(3,\)"):
        one_update(tx, {"b": jnp.ones(3), "w": jnp.ones((2, 3))})
    for axis in ("0", 0.5, True, (0, None)):
        with pytest.raises(TypeError, match="axis must be a whole number, a tuple of them or None"):
            gt.adaptive_grad_clip(0.1, axis=axis)


# Centralization.


def test_central_gradients_have_mean_zero_in_each_unit():
    g = {"kernel": array(2, 3, 4), "bias": array(4), "scale": array()}
    first, _ = one_update(gt.centralize(), g)
    last, _ = one_update(gt.centralize(units="last"), g)
    np.testing.assert_allclose(np.mean(first["kernel"], axis=(1, 2)), 0, atol=1e-7)
    np.testing.assert_allclose(np.mean(last["kernel"], axis=(0, 1)), 0, atol=1e-7)
    for name in ("bias", "scale"):
        np.testing.assert_array_equal(first[name], g[name])
    with pytest.raises(ValueError, match="centralize: units must be one of"):
        gt.centralize(units="middle")


# Constraints.


def test_nans_become_zero_and_are_reported():
    tx = gt.chain(gt.zero_nans(), gt.identity())
    g = {"a": jnp.array([1.0, jnp.nan]), "b": jnp.array([jnp.inf, 2.0])}
    u, state = one_update(tx, g)
    np.testing.assert_array_equal(u["a"], [1.0, 0.0])
    np.testing.assert_array_equal(u["b"], [jnp.inf, 2.0])
    assert (bool(state[0].found_nan["a"]), bool(state[0].found_nan["b"])) == (True, False)
    assert gt.metrics(state)["found_nan"]
    _, state = tx.update({"a": jnp.ones(2), "b": jnp.ones(2)}, state)
    assert not gt.metrics(state)["found_nan"]
    assert not gt.metrics(tx.init({}))["found_nan"]


def test_complex_nans_become_zero():
    u, _ = one_update(gt.zero_nans(), jnp.array([complex(1, np.nan), 1j], jnp.complex64))
    np.testing.assert_array_equal(u, [0, 1j])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_stay_nonnegative(dtype):
    p = jnp.asarray([0.0, 1e-3, 1.0, 3.0], dtype)
    tx = gt.chain(gt.sgd(1.0), gt.keep_params_nonnegative())
    u, _ = one_update(tx, jnp.asarray([1.0, 2e-3, 1.0, -1.0], dtype), p)
    np.testing.assert_array_equal(gt.apply_updates(p, u), np.asarray([0, 0, 0, 4], dtype))


def test_a_sign_needs_real_parameters():
    with pytest.raises(ValueError, match=r"at \['a'\]: complex parameters are neither negative nor positive"):
        one_update(gt.keep_params_nonnegative(), {"a": jnp.ones(2, jnp.complex64)})
    with pytest.raises(ValueError, match="keep_params_nonnegative: update needs the parameters"):
        gt.keep_params_nonnegative().update(jnp.ones(2), gt.keep_params_nonnegative().init(jnp.ones(2)))


def test_zero_whatever_comes():
    u, _ = one_update(gt.set_to_zero(), {"a": jnp.array([jnp.nan, jnp.inf]), "b": None})
    np.testing.assert_array_equal(u["a"], [0, 0])
    assert u["b"] is None


# Sums of updates.


def test_sums_are_at_least_float32():
    tx = gt.apply_every(300)
    state = tx.init(jnp.zeros(1, jnp.bfloat16))
    for _ in range(300):
        u, state = tx.update(jnp.ones(1, jnp.bfloat16), state)
    assert u[0] == 300 and state.grad_acc.dtype == jnp.float32


@pytest.mark.parametrize("k", [0, 1.5])
def test_how_often_is_a_whole_number(k):
    with pytest.raises((ValueError, TypeError), match="apply_every: k must be a whole number >= 1"):
        gt.apply_every(k)


# Gradients inside a model.


@pytest.mark.parametrize("scale", [3.0, 0.5, 0.0, 1.0, -1.0])
def test_scale_gradient(scale):
    x = {"a": jnp.array([1.0, 2.0]), "n": jnp.arange(3), "none": None}

    def loss(x, function):
        return jnp.sum(function(x)["a"] ** 2)

    value, slope = jax.value_and_grad(lambda a: loss({**x, "a": a}, lambda x: gt.scale_gradient(x, scale)))(x["a"])
    their_slope = jax.grad(lambda a: loss({"a": a}, lambda x: optax.scale_gradient(x, scale)))(x["a"])
    assert value == 5.0
    np.testing.assert_array_equal(slope, scale * 2 * x["a"])
    np.testing.assert_array_equal(slope, their_slope)
    same = gt.scale_gradient(x, scale)
    chex.assert_trees_all_equal(same, x)
    assert jax.tree.map(lambda a: a.dtype, same) == jax.tree.map(lambda a: a.dtype, x)


def test_scale_gradient_in_forward_mode_and_twice():
    def f(x):
        return jnp.sum(gt.scale_gradient(x, 3.0) ** 2)

    x = jnp.array([1.0, 2.0])
    np.testing.assert_array_equal(jax.jvp(f, (x,), (jnp.ones(2),))[1], 18.0)
    np.testing.assert_array_equal(jax.hessian(f)(x), 18 * np.eye(2))  # 3 for each of the two derivatives


def test_scale_gradient_with_a_traced_scale():
    slope = jax.jit(lambda s: jax.grad(lambda x: jnp.sum(gt.scale_gradient(x, s)))(jnp.ones(2, jnp.bfloat16)))
    np.testing.assert_array_equal(slope(0.5), [0.5, 0.5])
    assert slope(0.5).dtype == jnp.bfloat16
    assert jax.grad(lambda s: jnp.sum(gt.scale_gradient(jnp.ones(2), s)))(3.0) == 0


def test_a_scale_of_zero_stops_infinite_gradients():
    slope = jax.grad(lambda x: jnp.sum(jnp.log(gt.scale_gradient(x, 0.0))))(jnp.zeros(2))
    np.testing.assert_array_equal(slope, [0, 0])


def test_complex_inputs_of_scale_gradient():
    slope = jax.grad(lambda z: jnp.sum(jnp.real(gt.scale_gradient(z, 2.0) * 1j)))(jnp.ones(2, jnp.complex64))
    np.testing.assert_array_equal(slope, [2j, 2j])


@pytest.mark.parametrize("scale", [jnp.ones(2), lambda t: 1.0, "1"])
def test_a_scale_is_one_number(scale):
    with pytest.raises(TypeError, match="scale_gradient: scale must be a number"):
        gt.scale_gradient(jnp.ones(2), scale)
