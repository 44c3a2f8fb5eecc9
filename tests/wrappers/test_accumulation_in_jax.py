# SPDX-License-Identifier: Apache-2.0
"""Gradient accumulation under JAX: what runs, what is remembered, and on how many devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx as gt

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 16).reshape(8, 2), "b": jnp.asarray(0.5)}


def stacked_gradients(count, seed=0):
    rng = np.random.default_rng(seed)
    return {n: jnp.asarray(rng.normal(size=(count, *p.shape)), jnp.float32) for n, p in PARAMS.items()}


def assert_close(have, want):
    chex.assert_trees_all_close(have, want, rtol=1e-6, atol=1e-6)


def size(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def scanned(tx, gradients, params=PARAMS):
    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (gt.apply_updates(params, updates), state), updates

    return jax.lax.scan(step, (params, tx.init(params)), gradients)


def counted(inner, calls):
    """The transformation, and a note in `calls` whenever its update runs, and not when it is compiled only."""

    def update(updates, state, params=None, **extra):
        jax.debug.callback(lambda: calls.append(None))
        return inner.update(updates, state, params, **extra)

    return gt.GradientTransformationExtraArgs(inner.init, update)


@pytest.mark.parametrize("how", ["scan", "jit", "plain"])
def test_the_inner_transformation_runs_when_an_update_is_made_and_not_else(how):
    calls, gradients = [], stacked_gradients(16)
    tx = gt.MultiSteps(counted(gt.adam(0.1), calls), 8)
    if how == "scan":
        jax.block_until_ready(jax.jit(lambda g: scanned(tx, g))(gradients))
    else:
        update, state = jax.jit(tx.update) if how == "jit" else tx.update, tx.init(PARAMS)
        for i in range(16):
            _, state = update(jax.tree.map(lambda g, i=i: g[i], gradients), state, PARAMS)
        jax.block_until_ready(state)
    jax.effects_barrier()
    assert len(calls) == 2


def test_it_adds_one_buffer_of_the_parameters_size_and_some_scalars():
    inner = gt.adam(0.1)
    added = size(gt.MultiSteps(inner, 8).init(PARAMS)) - size(inner.init(PARAMS))
    assert 0 <= added - size(PARAMS) <= 32


@pytest.mark.parametrize("params_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("gradient_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("inner", [gt.adafactor(0.1), optax.adam(0.1)], ids=["gradtx", "optax"])
@pytest.mark.usefixtures("standard_promotion")
def test_the_state_keeps_its_types_with_anybody_s_transformation(inner, params_dtype, gradient_dtype):
    """optax's Adam alone does not."""
    tx = gt.MultiSteps(inner, 2)
    params = jax.tree.map(lambda p: p.astype(params_dtype), PARAMS)
    gradients = jax.tree.map(lambda g: g.astype(gradient_dtype), stacked_gradients(4))
    (_, state), updates = scanned(tx, gradients, params)
    assert types(state) == types(tx.init(params))
    assert int(state.gradient_step) == 2 and np.any(np.asarray(updates["w"][1]))


def test_other_numbers_of_calls_do_not_compile_again():
    traces = []

    @jax.jit
    def step(tx, gradients):
        traces.append(None)
        return scanned(tx, gradients)[1]

    gradients = stacked_gradients(4)
    for k in (1, 2, 4):
        updates = step(gt.MultiSteps(gt.sgd(1.0), k), gradients)
        want = np.mean(np.asarray(gradients["w"]).reshape(4 // k, k, 8, 2), axis=1)
        np.testing.assert_allclose(updates["w"][k - 1 :: k], -want, rtol=1e-5, atol=1e-6)
    assert len(traces) == 1


@pytest.mark.slow
def test_a_population_in_which_each_drops_its_own():
    """Each member of a `vmap` has its own k and its own gradients."""
    members = [gt.MultiSteps(gt.sgd(rate), k) for rate, k in ((0.1, 1), (0.2, 2), (0.3, 4))]
    population = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y, jnp.float32) for y in x]), *members)
    gradients = jax.tree.map(lambda g: jnp.stack([g, g, g]), stacked_gradients(4))
    gradients["b"] = gradients["b"].at[1, 2].set(jnp.nan)
    together = jax.vmap(lambda tx, g: scanned(tx, g))(population, gradients)
    for i, tx in enumerate(members):
        alone = scanned(tx, jax.tree.map(lambda g, i=i: g[i], gradients))
        assert_close(jax.tree.map(lambda x, i=i: x[i], together), alone)


# Devices.


def mesh(kind):
    return jax.make_mesh((8,), ("data",), axis_types=(kind,))


def placed_on(devices, tree, specs):
    return jax.tree.map(lambda x, spec: jax.device_put(x, NamedSharding(devices, spec)), tree, specs)


SPLIT = {"w": P("data"), "b": P()}
STACKED = {"w": P(None, "data"), "b": P()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_parameters(kind):
    devices = mesh(kind)
    tx = gt.MultiSteps(gt.chain(gt.clip_by_global_norm(1.0), gt.adam(0.1)), 2)
    gradients = stacked_gradients(4)
    gradients["w"] = gradients["w"].at[0, 3, 1].set(jnp.inf)
    with jax.set_mesh(devices):
        params, placed = placed_on(devices, PARAMS, SPLIT), placed_on(devices, gradients, STACKED)
        state = tx.init(params)
        assert state.acc_grads["w"].sharding == params["w"].sharding
        update = jax.jit(tx.update)
        for i in range(4):
            updates, state = update(jax.tree.map(lambda g, i=i: g[i], placed), state, params)
            assert state.acc_grads["w"].sharding.is_equivalent_to(params["w"].sharding, 2)
            params = gt.apply_updates(params, updates)
    (want, want_state), _ = scanned(tx, gradients)
    assert_close(jax.device_get((params, state)), jax.device_get((want, want_state)))


def specs(tx):
    """How the state lies on the devices: trees of the parameters as they do, the rest on all."""
    like = jax.eval_shape(tx.init, PARAMS)
    return jax.tree.map(lambda x: P("data") if x.shape == (8, 2) else P(), like)


@pytest.mark.parametrize("check", [True, False])
def test_parts_of_gradients_on_eight_devices_are_dropped_together(check):
    tx = gt.MultiSteps(gt.adam(0.1), 2, axis_name="data")
    gradients = stacked_gradients(6)
    gradients["w"] = gradients["w"].at[2, 5, 0].set(jnp.nan)  # the part of one device

    mapped = jax.shard_map(
        lambda params, g: scanned(tx, g, params),
        mesh=mesh(AxisType.Auto),
        in_specs=(SPLIT, STACKED),
        out_specs=((SPLIT, specs(tx)), STACKED),
        check_vma=check,
    )
    split = jax.jit(mapped)(PARAMS, gradients)
    whole = scanned(tx.replace(axis_name=None), gradients)
    assert_close(split, whole)
    assert int(split[0][1].skip_state.skipped) == 1


def test_batches_on_eight_devices():
    """Each device adds up the gradients of its own batches; they are averaged once a round, inside of `opt`."""

    def everybody_s(updates, params):
        return jax.lax.pmean(updates, "data")

    one_mean = gt.MultiSteps(gt.chain(gt.stateless(everybody_s), gt.adam(0.1)), 3, axis_name="data")
    rng = np.random.default_rng(2)
    gradients = {n: jnp.asarray(rng.normal(size=(8, 6, *p.shape)), jnp.float32) for n, p in PARAMS.items()}

    def train(gradients):
        return scanned(one_mean, jax.tree.map(lambda g: g[0], gradients))[0][0]

    mapped = jax.shard_map(train, mesh=mesh(AxisType.Auto), in_specs=(P("data"),), out_specs=P(), check_vma=False)
    want, _ = scanned(gt.MultiSteps(gt.adam(0.1), 3), jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients))
    assert_close(jax.jit(mapped)(gradients), want[0])


# Memory.


def test_state_and_parameters_can_be_donated():
    tx = gt.MultiSteps(gt.adam(0.1), 2, averaged=("value",))
    step = jax.jit(lambda p, s, g: tx.update(g, s, p, value=1.0), donate_argnums=(0, 1))
    gradients = stacked_gradients(4)
    params = jax.tree.map(jnp.copy, PARAMS)
    state = tx.init(params)
    for i in range(4):
        updates, state = step(jax.tree.map(jnp.copy, params), state, jax.tree.map(lambda g, i=i: g[i], gradients))
        params = gt.apply_updates(params, updates)
    assert_close(params, scanned(gt.MultiSteps(gt.adam(0.1), 2), gradients)[0][0])


def test_what_the_inner_transformation_keeps_is_no_memory_of_the_wrapper_s():
    def update(updates, state, params=None, *, value, **extra):
        return updates, (updates, value)

    keeps = gt.GradientTransformationExtraArgs(
        lambda params: (jax.tree.map(jnp.zeros_like, params), jnp.zeros([])), update
    )
    tx = gt.MultiSteps(keeps, 1, averaged=("value",))
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.ones([]))
    held = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((state, PARAMS))]
    assert len(set(held)) == len(held)
