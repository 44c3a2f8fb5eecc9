# SPDX-License-Identifier: Apache-2.0
"""A stage comes in, a group begins anew, a layer is added: the rest of the state stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"body": {"w": jnp.ones((2, 3))}, "head": {"w": jnp.ones(3)}}
GRADS = jax.tree.map(lambda p: 0.5 * p, PARAMS)


def trained(tx, steps=20, params=PARAMS):
    state = tx.init(params)
    for _ in range(steps):
        _, state = tx.update(jax.tree.map(lambda p: 0.5 * p, params), state, params)
    return state


# Optax.


@pytest.mark.usefixtures("standard_promotion")
def test_a_stage_that_comes_in_makes_the_state_of_optax_useless():
    state = trained(optax.adam(0.1))
    longer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1), optax.add_decayed_weights(0.1))
    with pytest.raises(ValueError, match="init"):
        longer.update(GRADS, state, PARAMS)


@pytest.mark.usefixtures("standard_promotion")
def test_a_stage_that_comes_in_unseen_is_not_noticed_by_optax():
    """Where the number of stages happens to fit, the wrong states are an error from far away."""
    state = trained(optax.adam(0.1))
    with pytest.raises(AttributeError, match="'EmptyState' object has no attribute"):
        optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam()).update(GRADS, state, PARAMS)


@pytest.mark.usefixtures("standard_promotion")
def test_a_new_layer_makes_the_state_of_optax_useless():
    more = {**PARAMS, "new": {"w": jnp.ones(2)}}
    with pytest.raises(ValueError, match="pytree structure error"):
        optax.adam(0.1).update(more, trained(optax.adam(0.1)), more)


# gradtx.


def test_a_stage_comes_in():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1e6), gradtx.adam(0.1))
    before = trained(gradtx.adam(0.1))
    state, report = gradtx.migrate(before, tx, PARAMS)
    assert not (report.initialized or report.dropped)
    found, _ = tx.update(GRADS, state, PARAMS)
    want, _ = gradtx.adam(0.1).update(GRADS, before, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_the_state_of_optax_goes_on_too():
    with jax.numpy_dtype_promotion("standard"):
        before = trained(optax.adam(0.1))
        want, _ = optax.adam(0.1).update(GRADS, before, PARAMS)
    tx = gradtx.chain(gradtx.clip_by_global_norm(1e6), gradtx.adam(0.1))
    found, _ = tx.update(GRADS, gradtx.migrate(before, tx, PARAMS)[0], PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, want)


def test_one_group_begins_anew():
    tx = gradtx.adam(0.1)
    before = trained(tx)
    state = gradtx.reset(tx, before, PARAMS, "head/**")
    np.testing.assert_array_equal(state[0].mu["head"]["w"], 0)
    assert state[0].mu["body"]["w"] is before[0].mu["body"]["w"]
    np.testing.assert_array_equal(state[0].count, [before[0].count, 0])  # the body's age and the head's


def test_a_layer_is_added():
    more = {**PARAMS, "new": {"w": jnp.ones(2)}}
    tx = gradtx.adam(0.1)
    before = trained(tx)
    state, report = gradtx.migrate(before, tx, more)
    assert {r.parameter for r in report.initialized} == {"new/w"}
    updates, _ = tx.update(jax.tree.map(lambda p: 0.5 * p, more), state, more)
    want, _ = tx.update(GRADS, before, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, {n: updates[n] for n in PARAMS}, want)
