# SPDX-License-Identifier: Apache-2.0
"""The direction of one transformation with the size of another. Formulas: tests/formulas."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = {"w": jnp.ones((2, 2)), "b": jnp.ones(3), "none": None}
GRADS = {"w": jnp.array([[1.0, -2.0], [0.5, 4.0]]), "b": jnp.array([0.1, 0.0, -3.0]), "none": None}


def updates_of(tx):
    return tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]


def test_both_remember():
    tx = gradtx.graft(gradtx.scale_by_adam(), gradtx.trace(0.9))
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert int(state.direction_state.count) == 1
    np.testing.assert_array_equal(state.magnitude_state.trace["w"], GRADS["w"])


@pytest.mark.parametrize("scope", ["parameter", "tree"])
def test_no_direction_is_no_step(scope):
    tx = gradtx.graft(gradtx.scale(0.0), gradtx.sgd(0.1), scope)
    for n in ("w", "b"):
        np.testing.assert_array_equal(updates_of(tx)[n], np.zeros_like(GRADS[n]))


def test_grafted_onto_itself_it_is_itself():
    tx = gradtx.graft(gradtx.adam(0.1), gradtx.adam(0.1))
    chex.assert_trees_all_close(updates_of(tx), updates_of(gradtx.adam(0.1)), rtol=1e-6)
