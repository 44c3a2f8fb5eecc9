# SPDX-License-Identifier: Apache-2.0
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import masked
from gradtx.states import MaskedNode

PARAMS = {"w": jnp.ones((2, 2)), "b": {"x": jnp.ones(2), "y": jnp.zeros(2)}}


def update(tx, *args, **kwargs):
    return tx.update(*args, **kwargs)[0]


@pytest.mark.parametrize("mask", [{"w": True, "b": {"x": False, "y": True}}, {"w": True, "b": False}])
def test_elsewhere_updates_pass_and_there_is_no_state(mask):
    tx = masked(gradtx.trace(0.9), mask)
    state = tx.init(PARAMS)
    u, state = tx.update(PARAMS, state, PARAMS)
    u, state = tx.update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(u["w"], 1.9)
    np.testing.assert_array_equal(u["b"]["x"], PARAMS["b"]["x"])
    hidden = state.inner_state.trace["b"]
    assert hidden["x"] == MaskedNode()


def test_all_true_is_the_inner_transformation_bit_for_bit():
    inner = gradtx.adamw(0.1)
    tx = masked(inner, lambda params: jax.tree.map(lambda p: True, params))
    a, b = update(tx, PARAMS, tx.init(PARAMS), PARAMS), update(inner, PARAMS, inner.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(a, b)


def test_a_function_sees_the_parameters_and_without_them_the_updates():
    tx = masked(gradtx.scale(2.0), lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree))
    for params in (PARAMS, None):
        u = update(tx, PARAMS, tx.init(PARAMS), params)
        assert u["w"][0, 0] == 2 and u["b"]["x"][0] == 1


def test_extra_arguments_are_masked_when_asked():
    seen = {}

    def spy(updates, state, params=None, *, value, other):
        seen.update(value=value, other=other)
        return updates, state

    inner = gradtx.GradientTransformationExtraArgs(lambda p: (), spy)
    tx = masked(inner, {"w": True, "b": False}, mask_compatible_extra_args=True)
    update(tx, PARAMS, tx.init(PARAMS), PARAMS, value=3.0, other=PARAMS)
    assert seen["value"] == 3.0 and seen["other"]["b"] == {"x": MaskedNode(), "y": MaskedNode()}


def test_none_gradients_under_a_mask():
    tx = masked(gradtx.adam(0.1), {"w": True, "b": True})
    u = update(tx, {"w": None, "b": PARAMS["b"]}, tx.init(PARAMS), PARAMS)
    assert u["w"] is None and np.all(np.isfinite(u["b"]["x"]))


def test_a_flag_may_be_an_array_without_axes():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = gradtx.masked(gradtx.scale(3.0), {"a": np.array(True), "b": jnp.asarray(False)})
    u, _ = tx.update(params, tx.init(params))
    np.testing.assert_array_equal(u["a"], 3.0)
    np.testing.assert_array_equal(u["b"], 1.0)
    for wrong in (np.array([True]), np.array(1)):
        with pytest.raises(TypeError, match="mask must hold True or False"):
            gradtx.masked(gradtx.scale(3.0), {"a": wrong, "b": True})
