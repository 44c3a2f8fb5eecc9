# SPDX-License-Identifier: Apache-2.0
"""One vector for each dtype: the same numbers, dtypes and meaning of None as without."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradtx as gt
from gradtx.testing import check_contract

RNG = np.random.default_rng(7)
SHAPES = {"s": (), "v": (3,), "m": (2, 3), "e": (0, 2)}


def tree(dtypes):
    return {n: jnp.asarray(RNG.normal(size=shape), dtypes[n]) for n, shape in SHAPES.items()}


ONE = dict.fromkeys(SHAPES, jnp.float32)
MIXED = {"s": jnp.bfloat16, "v": jnp.float32, "m": jnp.bfloat16, "e": jnp.float32}
COMPLEX = {"s": jnp.float32, "v": jnp.complex64, "m": jnp.float16, "e": jnp.float32}

INNER = [
    gt.adam(0.1),
    gt.adamw(gt.linear_schedule(0.1, 0.0, 5), weight_decay=0.1),
    gt.chain(gt.clip_by_global_norm(0.5), gt.sgd(0.1, momentum=0.9)),
    gt.rmsprop(0.1),
    gt.scale_by_lion(),
]


@pytest.mark.parametrize("dtypes", [ONE, MIXED, COMPLEX], ids=["one", "mixed", "complex"])
@pytest.mark.parametrize("inner", INNER, ids=repr)
def test_the_updates_are_those_of_the_inner_transformation(inner, dtypes):
    params, flat = tree(dtypes), gt.flatten(inner)
    state, flat_state = inner.init(params), flat.init(params)
    for _ in range(3):
        g = tree(dtypes)
        updates, state = inner.update(g, state, params)
        flat_updates, flat_state = jax.jit(flat.update)(g, flat_state, params)
        for n, u in updates.items():
            assert flat_updates[n].dtype == u.dtype and flat_updates[n].shape == u.shape
            np.testing.assert_allclose(flat_updates[n], u, rtol=1e-6, atol=1e-7)


def test_the_inner_transformation_sees_vectors():
    shapes = jax.tree.map(jnp.shape, gt.flatten(gt.scale_by_adam()).init(tree(ONE)).inner_state.mu)
    assert shapes == (10,)
    mu = gt.flatten(gt.trace(0.9)).init(tree(MIXED)).inner_state.trace
    assert {n: x.shape for n, x in mu.items()} == {"bfloat16": (7,), "float32": (3,)}


@pytest.mark.usefixtures("standard_promotion")
def test_one_dtype_gives_the_numbers_and_the_inner_state_of_optax():
    params = tree(ONE)
    ours, theirs = gt.flatten(gt.adam(0.1)), optax.flatten(optax.adam(0.1))
    state, their_state = ours.init(params), theirs.init(params)
    for _ in range(3):
        g = tree(ONE)
        updates, state = ours.update(g, state, params)
        their_updates, their_state = theirs.update(g, their_state, params)
        for n in params:
            np.testing.assert_allclose(updates[n], their_updates[n], rtol=1e-4, atol=1e-6)
    shown = [
        [(jax.tree_util.keystr(k), x.shape, x.dtype) for k, x in jax.tree_util.tree_leaves_with_path(s)]
        for s in (state.inner_state, their_state)
    ]
    assert shown[0] == shown[1]


def test_gradients_may_have_other_dtypes_than_parameters():
    params = tree(MIXED)
    g = tree({**ONE, "v": jnp.bfloat16})
    tx = gt.flatten(gt.adam(0.1))
    start = tx.init(params)
    updates, state = tx.update(g, start, params)
    assert {u.dtype for u in updates.values()} == {np.dtype("float32")}
    assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(lambda x: x.dtype, start)


def test_parameters_may_be_left_out():
    g = tree(ONE)
    tx = gt.flatten(gt.adam(0.1))
    with_params, without = tx.update(g, tx.init(g), g)[0], tx.update(g, tx.init(g))[0]
    chex.assert_trees_all_equal(with_params, without)


@pytest.mark.slow
def test_contract_with_two_dtypes():
    check_contract(gt.flatten(gt.adamw(0.1)), tree(MIXED))


def test_no_gradient_of_a_whole_dtype_changes_nothing():
    params = {"a": jnp.ones(2), "b": jnp.ones(3, jnp.bfloat16), "n": jnp.int32(3)}
    tx = gt.flatten(gt.scale_by_adam())
    _, state = tx.update({**params, "n": None}, tx.init(params), params)
    float0 = np.zeros([], jax.dtypes.float0)
    updates, after = tx.update({"a": params["a"], "b": None, "n": float0}, state, params)
    assert updates["b"] is None and updates["n"].dtype == jax.dtypes.float0
    for before, now in ((state.inner_state.mu, after.inner_state.mu), (state.inner_state.nu, after.inner_state.nu)):
        np.testing.assert_array_equal(now["bfloat16"], before["bfloat16"])
        np.testing.assert_array_equal(now["int32"], before["int32"])


def test_no_gradient_among_others_counts_as_zero():
    params = {"a": jnp.ones(2), "b": {"x": jnp.ones(3), "y": jnp.ones(1)}, "c": jnp.full(2, 2.0)}
    tx = gt.flatten(gt.trace(0.5))
    _, state = tx.update(params, tx.init(params), params)
    updates, state = tx.update({"a": params["a"], "b": None, "c": params["c"]}, state, params)
    assert updates["b"] is None
    np.testing.assert_array_equal(updates["a"], [1.5, 1.5])
    np.testing.assert_array_equal(updates["c"], [3.0, 3.0])
    np.testing.assert_array_equal(state.inner_state.trace, [1.5] * 2 + [0.5] * 4 + [3.0] * 2)


def test_extra_arguments():
    params = tree(ONE)
    g = jax.tree.map(jnp.cos, params)
    for inner in (gt.polyak_sgd(), gt.momo(0.1)):
        plain, flat = inner, gt.flatten(inner)
        expected, _ = plain.update(g, plain.init(params), params, value=jnp.asarray(2.0), grad=g)
        found, _ = flat.update(g, flat.init(params), params, value=jnp.asarray(2.0), grad=g)
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-7)
    scalar = jnp.asarray(2.0)
    tx = gt.flatten(gt.polyak_sgd())
    np.testing.assert_allclose(tx.update(scalar, tx.init(scalar), scalar, value=scalar)[0], -1.0, rtol=1e-6)


@pytest.mark.parametrize("dtypes", [ONE, MIXED], ids=["one", "mixed"])
def test_the_parameters_for_evaluation(dtypes):
    params = tree(dtypes)
    inner = gt.chain(gt.sgd(0.1), gt.params_ema(0.5))
    flat = gt.flatten(inner)
    _, state = inner.update(params, inner.init(params), params)
    _, flat_state = flat.update(params, flat.init(params), params)
    expected, found = gt.eval_params(state, params), gt.eval_params(flat_state, params)
    for n, x in expected.items():
        assert found[n].dtype == x.dtype and found[n].shape == x.shape
        np.testing.assert_allclose(np.float32(found[n]), np.float32(x), rtol=1e-6)
    none = gt.flatten(gt.sgd(0.1))
    chex.assert_trees_all_equal(gt.eval_params(none.init(params), params), params)


def test_fewer_operations_than_leaves():
    params = {i: jnp.ones(3) for i in range(50)}

    def operations(tx):
        state = tx.init(params)
        jaxpr = jax.make_jaxpr(lambda g, s: tx.update(g, s, params))(params, state)
        return sum(eqn.primitive.name in ("jit", "pjit") for eqn in jaxpr.eqns)

    assert operations(gt.flatten(gt.adam(0.1))) < operations(gt.adam(0.1)) / 10


def test_a_mesh_with_explicit_axes():
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        params = {
            "w": jax.device_put(jnp.ones((2, 4, 4)), PartitionSpec(None, "x", "y")),
            "b": jax.device_put(jnp.ones(4), PartitionSpec("y")),
        }
        tx = gt.flatten(gt.adam(0.1))
        updates, _ = jax.jit(lambda p: tx.update(p, tx.init(p), p))(params)
        for n, u in updates.items():
            assert jax.typeof(u).sharding == jax.typeof(params[n]).sharding
            np.testing.assert_allclose(u, np.full(u.shape, -0.1), rtol=1e-5)


def test_bad_input():
    with pytest.raises(TypeError, match="flatten: inner must be a transformation, got the factory adam"):
        gt.flatten(gt.adam)
    tx, params = gt.flatten(gt.sgd(0.1)), tree(ONE)
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"flatten: the gradient at \['v'\] has shape \(2,\)"):
        tx.update({**params, "v": jnp.ones(2)}, state, params)
    with pytest.raises(TypeError, match="flatten: state must be the FlattenState"):
        tx.update(params, params, state)
