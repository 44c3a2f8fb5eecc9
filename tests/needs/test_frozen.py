# SPDX-License-Identifier: Apache-2.0
"""Frozen parameters have no state, cost nothing, and not even their gradients need be computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")
PARAMS = {"body": {"w1": jnp.full((3, 8), 0.1), "w2": jnp.full((8, 8), 0.1)}, "head": jnp.full((8, 2), 0.1)}
MASK = {"body": True, "head": False}
X = jnp.linspace(-1, 1, 12).reshape(4, 3)


def loss(params):
    hidden = jnp.tanh(jnp.tanh(X @ params["body"]["w1"]) @ params["body"]["w2"])
    return jnp.mean((hidden @ params["head"] - 1) ** 2)


def products(f, *args):
    return str(jax.make_jaxpr(f)(*args)).count("dot_general")


def size(state):
    return sum(x.size for x in jax.tree.leaves(state))


# Optax.


def test_optax_freezes_updates_and_state_but_not_gradients():
    tx = optax.selective_transform(optax.adam(0.1), freeze_mask=MASK)
    state = tx.init(PARAMS)
    assert size(state) == 2 * 16 + 1
    updates, _ = tx.update(jax.grad(loss)(PARAMS), state, PARAMS)
    assert not np.any(updates["body"]["w1"])
    assert not hasattr(optax, "split_frozen")


# gradtx.


def test_frozen_parameters_have_no_state():
    assert size(gt.selective_transform(gt.adam(0.1), freeze_mask=MASK).init(PARAMS)) == 2 * 16 + 1


def test_the_work_is_that_of_the_rest():
    """No operation of the optimizer has the shape of a frozen parameter, but the zeros that it gives."""
    tx = gt.selective_transform(gt.adam(0.1), freeze_mask=MASK)
    text = str(jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS), PARAMS))
    made = [line for line in text.splitlines() if ":f32[8,8] = " in line or ":f32[3,8] = " in line]
    assert made and all("broadcast_in_dim" in line for line in made)


def test_gradients_of_frozen_parameters_are_not_computed():
    trained, frozen = gt.split_frozen(PARAMS, MASK)
    assert jax.tree.leaves(trained)[0].shape == (8, 2) and len(jax.tree.leaves(frozen)) == 2

    def split_loss(trained, frozen):
        return loss(gt.join_frozen(trained, frozen))

    forward = products(loss, PARAMS)
    assert products(jax.grad(loss), PARAMS) == forward + 5
    assert products(jax.grad(split_loss), trained, frozen) == forward + 1


@pytest.mark.parametrize("make", [gt.adamw, gt.lion])
def test_both_ways_train_alike(make):
    tx = make(0.1)
    selective = gt.selective_transform(tx, freeze_mask=MASK)
    params, state = PARAMS, selective.init(PARAMS)
    trained, frozen = gt.split_frozen(PARAMS, MASK)
    split_state = tx.init(trained)
    for _ in range(3):
        updates, state = selective.update(jax.grad(loss)(params), state, params)
        params = gt.apply_updates(params, updates)
        grads = jax.grad(lambda t: loss(gt.join_frozen(t, frozen)))(trained)
        updates, split_state = tx.update(grads, split_state, trained)
        trained = gt.apply_updates(trained, updates)
    found = gt.join_frozen(trained, frozen)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, params)
    jax.tree.map(np.testing.assert_array_equal, found["body"], PARAMS["body"])
