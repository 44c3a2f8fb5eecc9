# SPDX-License-Identifier: Apache-2.0
"""Libraries that people train with take gradtx's transformations as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

pytestmark = pytest.mark.usefixtures("standard_promotion")

X = jnp.linspace(-1, 1, 12).reshape(4, 3)
Y = jnp.sin(X[:, :2])

OPTIMIZERS = {
    "adamw": lambda: gradtx.adamw(0.03),
    "clipped sgd": lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9)),
    "scheduled": lambda: gradtx.adam(lambda count: 0.03 / (1 + count), b1=lambda count: 0.9),
}


@pytest.fixture(params=OPTIMIZERS, ids=str)
def tx(request):
    return OPTIMIZERS[request.param]()


def falls(losses):
    assert np.all(np.isfinite(losses)) and losses[-1] < 0.8 * losses[0], losses


def test_optax_chain(tx):
    chained = optax.chain(optax.clip(1.0), tx)
    params = {"w": jnp.ones((3, 2))}
    state = chained.init(params)
    losses = []
    for _ in range(20):
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((X @ p["w"] - Y) ** 2))(params)
        updates, state = chained.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))
    falls(losses)


def test_optax_inside_a_gradtx_chain():
    tx = gradtx.chain(optax.clip(1.0), gradtx.scale_by_adam(), optax.add_decayed_weights(0.1), optax.scale(-0.1))
    params = {"w": jnp.ones((3, 2))}
    updates, _ = tx.update(params, tx.init(params), params, value=1.0)
    np.testing.assert_allclose(updates["w"], -0.1 * 1.1, rtol=1e-5)


def test_flax_nnx_optimizer(tx):
    from flax import nnx

    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(X) - Y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    falls([float(step(model, optimizer)) for _ in range(20)])


def test_flax_linen_train_state(tx):
    import flax.linen as nn
    from flax.training.train_state import TrainState

    model = nn.Dense(2)
    state = TrainState.create(apply_fn=model.apply, params=model.init(jax.random.key(0), X), tx=tx)

    @jax.jit
    def step(state):
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((state.apply_fn(p, X) - Y) ** 2))(state.params)
        return state.apply_gradients(grads=grads), loss

    losses = []
    for _ in range(20):
        state, loss = step(state)
        losses.append(float(loss))
    falls(losses)


@pytest.mark.slow
def test_equinox_filter_jit(tx):
    import equinox as eqx

    model = eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0))
    state = tx.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state, tx):
        loss, grads = eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(X) - Y) ** 2))(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for _ in range(20):
        model, state, loss = step(model, state, tx)
        losses.append(float(loss))
    falls(losses)


def test_another_rate_is_no_new_compilation_under_filter_jit():
    import equinox as eqx

    traces, params = [], {"w": jnp.ones(2)}

    @eqx.filter_jit
    def step(tx, state):
        traces.append(None)
        return tx.update(params, state, params)

    tx = gradtx.chain(gradtx.clip(2.0), gradtx.adam(jnp.asarray(0.5)))
    state = tx.init(params)
    for rate in (0.5, 0.25):
        updates, state = step(tx, state)
        np.testing.assert_allclose(updates["w"], -rate, rtol=1e-5)
        tx = gradtx.chain(gradtx.clip(2.0), tx.arguments["transformations"][1].replace(learning_rate=jnp.asarray(0.25)))
    assert len(traces) == 1
    step(gradtx.chain(gradtx.clip(2.0), gradtx.adam(0.25)), state)
    assert len(traces) == 2


def test_gradtx_apply_updates_on_an_equinox_module_with_functions_in_it():
    import equinox as eqx

    model = eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0), dtype=jnp.bfloat16)
    grads = eqx.filter(jax.tree.map(lambda x: jnp.ones_like(x) if eqx.is_array(x) else x, model), eqx.is_array)
    tx = gradtx.sgd(0.5)
    moved = gradtx.apply_updates(model, tx.update(grads, tx.init(grads))[0])
    assert moved.layers[0].weight.dtype == jnp.bfloat16 and moved.activation is model.activation
    np.testing.assert_array_equal(moved.layers[0].bias, model.layers[0].bias - jnp.bfloat16(0.5))
