# SPDX-License-Identifier: Apache-2.0
"""States of stages that remember nothing, and states made from the shapes of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

SHAPES = {"w": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
ARRAYS = jax.tree.map(lambda x: jnp.full(x.shape, 0.5, x.dtype), SHAPES)
STATELESS = [
    gt.clip(0.5),
    gt.scale(2.0),
    gt.identity(),
    gt.stateless(lambda g, p: g),
    gt.stateless_with_tree_map(lambda g, p: g),
    gt.clip_by_global_norm(1.0),
    gt.aggregating.average_per_element_updates(),
]


@pytest.mark.parametrize("tx", STATELESS, ids=str)
def test_a_stage_that_remembers_nothing_hands_on_what_it_gets(tx):
    g = {"a": jnp.ones(3)}
    want, empty = tx.update(g, tx.init(g))
    for state in (None, (), "any", {"a": 1}):
        found, kept = tx.update(g, state)
        assert kept is state
        np.testing.assert_array_equal(found["a"], want["a"])
    with pytest.raises(TypeError, match=r"the order is update\(updates, state, params\)"):
        tx.update(g, g, empty)


@pytest.mark.parametrize(
    "tx",
    [
        gt.adamw(1e-3),
        gt.adafactor(gt.constant_schedule(1e-3)),
        gt.MultiSteps(gt.adam(1e-3), 3),
        gt.inject_hyperparams(gt.adam)(1e-3),
        gt.adamw8bit(1e-3, min_size=1),
        gt.with_roles([("**", gt.Role("hidden"))], gt.adam(1e-3)),
        gt.chain(optax.adam(1e-3), gt.scale(1.0)),
    ],
    ids=["adamw", "adafactor", "MultiSteps", "inject_hyperparams", "adamw8bit", "with_roles", "optax"],
)
def test_a_state_of_shapes_is_that_of_arrays(tx):
    found, want = tx.init(SHAPES), tx.init(ARRAYS)
    assert jax.tree.structure(found) == jax.tree.structure(want)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        assert isinstance(x, jax.Array) and x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("tx", [gt.keep_master(), gt.lookahead(gt.sgd(0.1), 5, 0.5), gt.prodigy(1.0)], ids=str)
def test_a_state_that_depends_on_the_parameters_needs_them(tx):
    with pytest.raises(ValueError, match=r"init: the state at .* depends on the values of the parameters"):
        tx.init(SHAPES)
    assert jax.tree.structure(jax.eval_shape(tx.init, SHAPES)) == jax.tree.structure(tx.init(ARRAYS))


def test_shapes_with_a_sharding_make_a_state_with_it():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state = gt.trace(0.9).init(jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding))
    assert state.trace.sharding == sharding


@pytest.mark.usefixtures("standard_promotion")
def test_hyperparameters_in_a_narrow_dtype():
    p = jnp.ones(3)
    for lib in (gt, optax):
        tx = lib.inject_hyperparams(lib.sgd, hyperparam_dtype=jnp.bfloat16)(0.1)
        updates, state = tx.update(p, tx.init(p), p)
        assert state.hyperparams["learning_rate"].dtype == jnp.bfloat16
        np.testing.assert_allclose(updates, -np.float32(jnp.bfloat16(0.1)) * np.ones(3), rtol=1e-6)


def test_a_state_has_the_dtypes_of_the_setting_it_is_made_under():
    """Not of one under which its shapes were asked for before."""
    tx = gt.scale_by_muon()
    with jax.enable_x64(True):
        shapes = jax.eval_shape(tx.init, {"w": jnp.ones((2, 3))})
    assert shapes.ns_coeffs.dtype == np.float64
    assert tx.init({"w": jnp.ones((2, 3))}).ns_coeffs.dtype == np.float32
