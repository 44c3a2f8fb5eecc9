# SPDX-License-Identifier: Apache-2.0
"""Where gradtx's single stages differ from those of optax 0.2.8."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")


def updates_of(tx, gradients, params=None):
    state = tx.init(gradients[0] if params is None else params)
    found = []
    for g in gradients:
        u, state = tx.update(g, state, params)
        found.append(u)
    return found


def test_an_infinite_update_in_a_sum():
    gradients = [jnp.array([g]) for g in (np.inf, 1.0, 1.0, 1.0)]
    ours, theirs = (np.concatenate(updates_of(lib.apply_every(2), gradients)) for lib in (gt, optax))
    np.testing.assert_array_equal(theirs, [np.nan, np.inf, np.nan, np.nan])
    np.testing.assert_array_equal(ours, [0.0, np.inf, 0.0, 2.0])


def test_a_sum_that_never_comes():
    """optax takes k = 0 and returns 0 for ever."""
    np.testing.assert_array_equal(updates_of(optax.apply_every(0), [jnp.ones(2)] * 3), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="apply_every: k must be a whole number >= 1, got 0"):
        gt.apply_every(0)


def test_adaptive_clipping_in_float16():
    p = jnp.full((2, 3), 300.0, jnp.float16)  # the squares are beyond 65504
    ours, theirs = (updates_of(lib.adaptive_grad_clip(0.1), [p * 2], p)[0] for lib in (gt, optax))
    assert np.isnan(theirs).all()
    np.testing.assert_allclose(ours, np.full((2, 3), 30.0), rtol=1e-6)


def test_derivatives_of_adaptive_clipping_at_zero():
    def slope(lib):
        tx, p = lib.adaptive_grad_clip(0.1), jnp.ones((2, 3))
        return jax.grad(lambda g: jnp.sum(tx.update(g, tx.init(p), p)[0]))(jnp.zeros((2, 3)))

    assert np.isnan(slope(optax)).all()
    np.testing.assert_array_equal(slope(gt), np.ones((2, 3)))


def test_unitwise_norms_of_many_axes():
    x = jnp.ones((2, 2, 2, 2, 2, 3))
    with pytest.raises(ValueError, match=r"shape in \(1, 2, 3, 4, 5\)"):
        optax.transforms.unitwise_norm(x)
    np.testing.assert_allclose(gt.numerics.unitwise_norm(x), np.full(x.shape, 32**0.5), rtol=1e-6)


def test_per_example_norms_in_float16():
    grads = jnp.full((4, 1000), 300.0, jnp.float16)
    np.testing.assert_array_equal(optax.per_example_global_norm_clip(grads, 1.0)[0], np.zeros(1000))
    np.testing.assert_allclose(
        gt.aggregating.per_example_global_norm_clip(grads, 1.0)[0], np.full(1000, 4 * 1000**-0.5), rtol=1e-5
    )


def test_modes_of_differentiation_of_scale_gradient():
    def slope(lib):
        return jax.jvp(lambda x: lib.scale_gradient(x, 3.0), (jnp.ones(2),), (jnp.ones(2),))[1]

    with pytest.raises(TypeError, match="forward-mode"):
        slope(optax)
    np.testing.assert_array_equal(slope(gt), [3.0, 3.0])


def test_a_traced_scale_of_gradients():
    def slope(lib):
        return jax.jit(lambda s: jax.grad(lambda x: jnp.sum(lib.scale_gradient(x, s)))(jnp.ones(2)))(3.0)

    with pytest.raises(jax.errors.TracerBoolConversionError):
        slope(optax)
    np.testing.assert_array_equal(slope(gt), [3.0, 3.0])


def test_an_average_of_a_measurement_that_was_not_finite():
    def average(lib):
        tx = lib.monitor({"m": lib.measure_with_ema(jnp.sum, 0.9)})
        state = tx.init(jnp.ones(2))
        for g in (jnp.array([np.nan, 1.0]), jnp.ones(2)):
            _, state = tx.update(g, state)
        return state.measurements["m"]

    assert np.isnan(average(optax))
    np.testing.assert_allclose(average(gt), 2.0, rtol=1e-6)


def test_flattened_dtypes():
    params = {"a": jnp.ones(2), "b": jnp.ones((2, 2), jnp.bfloat16)}

    def dtypes(lib):
        seen = []

        def look(updates, params):
            seen.append(jax.tree.map(lambda x: x.dtype.name, params))
            return updates

        tx = lib.flatten(lib.stateless(look))
        updates, _ = tx.update(params, tx.init(params), params)
        return seen[0], jax.tree.map(lambda u: u.dtype.name, updates)

    assert dtypes(optax) == ("float32", {"a": "float32", "b": "float32"})
    own = {"bfloat16": "bfloat16", "float32": "float32"}
    assert dtypes(gt) == (own, {"a": "float32", "b": "bfloat16"})


def test_flattening_the_empty_tree_and_none():
    tx = optax.flatten(optax.adam(0.1))
    with pytest.raises(ValueError, match="at least one array"):
        tx.init({})
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    with pytest.raises(TypeError, match="shapes"):
        tx.update({"a": jnp.ones(2), "b": None}, tx.init(params), params)
    ours = gt.flatten(gt.adam(0.1))
    assert ours.update({}, ours.init({}), {})[0] == {}
    assert updates_of(ours, [{"a": jnp.ones(2), "b": None}], params)[0]["b"] is None


@pytest.mark.parametrize("make", [lambda lib: lib.adaptive_grad_clip(0.1), lambda lib: lib.flatten(lib.adam(0.1))])
def test_meshes_with_explicit_axes(make):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        p = {"k": jax.device_put(jnp.ones((8, 4)), PartitionSpec("x", "y")), "b": jnp.ones(4)}
        with pytest.raises(Exception, match="(?i)sharding"):  # of a class that JAX does not export
            updates_of(make(optax), [p], p)
        (u,) = updates_of(make(gt), [p], p)
        assert jax.typeof(u["k"]).sharding == jax.typeof(p["k"]).sharding


def test_measurements_before_the_first_update():
    params = jnp.full(4, 2.0)
    assert optax.monitor({"m": jnp.sum}).init(params).measurements == {}
    assert gt.monitor({"m": jnp.sum}).init(params).measurements == {"m": 0.0}
    assert optax.snapshot("m", jnp.sum).init(params).measurement == {"m": 8.0}
    assert gt.snapshot("m", jnp.sum).init(params).measurement == {"m": 0.0}


def test_norms_whose_squares_leave_float32():
    p, large, small = jnp.full(100, 2.0), jnp.full(100, 1e20), jnp.full(100, 1e-25)

    def norms(tx, g):
        return [np.sqrt(np.sum(np.asarray(updates_of(tx(lib), [g], p)[0], np.float64) ** 2)) for lib in (gt, optax)]

    np.testing.assert_allclose(norms(lambda lib: lib.clip_by_global_norm(1.0), large), [1.0, 0.0], rtol=1e-5)
    np.testing.assert_allclose(norms(lambda lib: lib.clip_by_global_norm(1e-26), small), [1e-26, 1e-24], rtol=1e-5)
    np.testing.assert_allclose(norms(lambda lib: lib.scale_by_trust_ratio(), large), [20.0, 0.0], rtol=1e-5)
    np.testing.assert_allclose(norms(lambda lib: lib.clip_by_block_rms(1.0), large), [10.0, 0.0], rtol=1e-5)


def test_adam_without_eps():
    zero = jnp.zeros(2)
    assert np.all(np.isnan(updates_of(optax.adam(0.1, eps=0.0), [zero])[0]))
    np.testing.assert_array_equal(updates_of(gt.adam(0.1, eps=0.0), [zero])[0], zero)


def test_an_average_in_float16_that_ends():
    """0.9 of the smallest four float16 is to the nearest the same number."""
    start = jnp.arange(1, 9, dtype=jnp.float32).astype(jnp.float16) * jnp.float16(2.0**-24)

    def end(lib, state):
        tx = lib.trace(0.9, accumulator_dtype=jnp.float16)
        for _ in range(40):
            _, state = tx.update(jnp.zeros(8, jnp.float16), state)
        return np.asarray(state.trace, np.float64) * 2**24

    np.testing.assert_array_equal(end(optax, optax.TraceState(start)), [1, 2, 3, 4, 4, 4, 4, 4])
    np.testing.assert_array_equal(end(gt, gt.states.TraceState(start)), np.zeros(8))
