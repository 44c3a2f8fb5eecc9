# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters in the state keep their precision, whatever the dtype of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")
PARAMS = {"w": jnp.full((2, 2), 0.5, jnp.bfloat16), "b": jnp.ones(2, jnp.bfloat16)}
GRADS = jax.tree.map(lambda p: p + jnp.bfloat16(0.25), PARAMS)


def module(value):
    """A module of equinox that can be called, as a schedule can."""
    import equinox as eqx

    class Module(eqx.Module):
        value: jax.Array

        def __call__(self, x):
            return self.value

    return Module(value)


def with_module(rate, module):
    return optax.sgd(rate)


def dtypes(tree):
    return jax.tree.map(lambda x: x.dtype, tree)


# Optax.


def test_optax_casts_to_bfloat16_and_gets_nan():
    tx = optax.inject_hyperparams(optax.adamw)(1e-3)
    state = tx.init(PARAMS)
    assert state.hyperparams["b2"].dtype == jnp.bfloat16 and state.hyperparams["b2"] == 1.0
    updates, _ = tx.update(GRADS, state, PARAMS)
    assert np.all(np.isnan(np.asarray(updates["w"], np.float32)))


def test_optax_takes_modules_and_masks_for_schedules():
    state = optax.inject_hyperparams(with_module)(0.1, module(jnp.ones(2))).init(PARAMS)
    assert "module" in state.hyperparams_states
    state = optax.inject_hyperparams(optax.adamw)(0.1, mask=lambda tree: True).init(PARAMS)
    assert "mask" in state.hyperparams_states


# gradtx.


@pytest.mark.parametrize("factory", [gt.adamw, optax.adamw])
def test_hyperparameters_are_float32_and_the_numbers_right(factory):
    tx = gt.inject_hyperparams(factory)(1e-3)
    state = tx.init(PARAMS)
    assert set(dtypes(state.hyperparams).values()) == {jnp.dtype(jnp.float32)}
    wide = jax.tree.map(jnp.float32, PARAMS)
    plain = optax.adamw(1e-3)
    plain_state = plain.init(wide)
    before = dtypes(state)
    for _ in range(5):
        updates, state = jax.jit(tx.update)(GRADS, state, PARAMS)
        expected, plain_state = plain.update(jax.tree.map(jnp.float32, GRADS), plain_state, wide)
        assert dtypes(state) == before
        for name in PARAMS:
            np.testing.assert_allclose(np.asarray(updates[name], np.float32), expected[name], rtol=0.02)


def test_gradtx_values_need_no_injection():
    tx = gt.adamw(1e-3)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    rates = jnp.array([1e-3, 2e-3])
    many = jax.vmap(lambda rate: tx.replace(learning_rate=rate).update(GRADS, tx.init(PARAMS), PARAMS)[0])(rates)
    np.testing.assert_allclose(many["w"][0], updates["w"], rtol=1e-4)


def test_modules_and_masks_are_handed_on():
    tx = gt.inject_hyperparams(with_module)(0.1, module(jnp.ones(2)))
    assert set(tx.init(PARAMS).hyperparams) == {"rate"}
    tx = gt.inject_hyperparams(gt.adamw)(0.1, mask=lambda tree: {"w": True, "b": False})
    state = tx.init(PARAMS)
    assert not state.hyperparams_states and "mask" not in state.hyperparams


def test_dtypes_can_be_called_and_are_no_schedules():
    with pytest.raises(TypeError):
        optax.inject_hyperparams(optax.adam)(0.1, mu_dtype=jnp.bfloat16).init(PARAMS)
    for factory in (gt.adam, optax.adam):
        state = gt.inject_hyperparams(factory)(0.1, mu_dtype=jnp.bfloat16).init(PARAMS)
        assert state.inner_state[0].mu["w"].dtype == jnp.bfloat16
