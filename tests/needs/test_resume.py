# SPDX-License-Identifier: Apache-2.0
"""Saved, restored: the next ten steps are the same bit for bit, also without the classes of the state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"layers": [{"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}, {"w": jnp.ones(3)}]}


def ten_steps(tx, params, state):
    for i in range(10):
        grads = jax.tree.map(lambda p, i=i: jnp.sin(p * (i + 1)), params)
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    return params, state


def saved(state):
    import flax.serialization

    return flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))


def test_optax_has_no_help_for_a_restored_dictionary():
    tx = optax.adamw(0.1)
    with jax.numpy_dtype_promotion("standard"):
        params, state = ten_steps(tx, PARAMS, tx.init(PARAMS))
        with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
            tx.update(params, saved(state), params)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 100)),
        gradtx.guard(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.muon(0.1))),
        gradtx.MultiSteps(gradtx.schedule_free_adamw(0.1), 3),
    ],
    ids=["adamw", "guarded muon", "in the middle of a round"],
)
def test_the_next_ten_steps_are_the_same(tx):
    params, state = ten_steps(tx, PARAMS, tx.init(PARAMS))
    want = ten_steps(tx, params, state)
    restored, report = gradtx.migrate(saved(state), tx, params)
    assert not (report.initialized or report.dropped)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, ten_steps(tx, params, restored), want)
