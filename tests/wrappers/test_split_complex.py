# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt

PARAMS = {"r": jnp.asarray([1.0, 2.0]), "z": jnp.asarray([1 + 2j, 3 - 1j], jnp.complex64)}


@pytest.mark.usefixtures("standard_promotion")
def test_the_same_numbers_and_state_as_optax():
    ours, theirs = (f(optax.adam(0.1)) for f in (gt.split_real_and_imaginary, optax.contrib.split_real_and_imaginary))
    state, their_state = ours.init(PARAMS), theirs.init(PARAMS)
    for scale in (1.0, -2.0, 0.5):
        g = jax.tree.map(lambda p, scale=scale: scale * p, PARAMS)
        updates, state = ours.update(g, state, PARAMS)
        expected, their_state = theirs.update(g, their_state, PARAMS)
        for n in PARAMS:
            np.testing.assert_allclose(updates[n], expected[n], rtol=1e-6)
    keys = [[jax.tree_util.keystr(k) for k, _ in jax.tree_util.tree_leaves_with_path(s)] for s in (state, their_state)]
    assert keys[0] == keys[1]


def test_both_parts_are_parameters_of_their_own():
    tx, real = gt.split_real_and_imaginary(gt.scale_by_adam()), gt.scale_by_adam()
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    parts = {n: f(PARAMS["z"]) for n, f in (("re", jnp.real), ("im", jnp.imag))}
    expected, _ = real.update(parts, real.init(parts))
    np.testing.assert_allclose(jnp.real(updates["z"]), expected["re"])
    np.testing.assert_allclose(jnp.imag(updates["z"]), expected["im"])
    assert updates["z"].dtype == jnp.complex64 and updates["r"].dtype == jnp.float32


def test_missing_gradients_extra_arguments_and_evaluation():
    tx = gt.split_real_and_imaginary(gt.chain(gt.curvature.gauss_newton_bartlett(1.0), gt.params_ema(0.0)))
    state = tx.init(PARAMS)
    g = {"r": None, "z": PARAMS["z"]}
    updates, state = tx.update(g, state, PARAMS, sampled_grad=g)
    assert updates["r"] is None
    np.testing.assert_allclose(updates["z"], [1 + 4j, 9 + 1j])
    found = gt.eval_params(state, PARAMS)
    np.testing.assert_allclose(found["z"], [2 + 6j, 12 + 0j])
    np.testing.assert_allclose(found["r"], PARAMS["r"])
    with pytest.raises(TypeError, match="split_real_and_imaginary: state must be the SplitRealAndImaginaryState"):
        tx.update(PARAMS, PARAMS, state)
