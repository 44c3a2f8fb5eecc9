# SPDX-License-Identifier: Apache-2.0
"""Norms around a transformation, published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = {"w": jnp.array([3.0, 4.0]), "b": None}


def grads(size):
    return {"w": jnp.array([0.0, size]), "b": None}


def recorded(tx, sizes):
    state, seen = tx.init(PARAMS), []
    for size in sizes:
        _, state = tx.update(grads(size), state, PARAMS)
        seen.append({k: float(v) for k, v in gradtx.metrics(state).items()})
    return seen


def test_the_norms_of_gradients_updates_and_parameters():
    names = ("grad_norm", "update_norm", "parameter_norm", "relative_update")
    (seen,) = recorded(gradtx.record_metrics(gradtx.sgd(0.5), names), [2.0])
    np.testing.assert_allclose([seen[n] for n in names], [2.0, 1.0, 5.0, 0.2], rtol=1e-6)


def test_the_part_of_the_steps_that_were_clipped():
    tx = gradtx.chain(gradtx.record_metrics(gradtx.clip_by_global_norm(1.0), ("clip_fraction",)), gradtx.sgd(0.1))
    seen = recorded(tx, [0.5, 2.0, 1.0, 8.0])
    np.testing.assert_allclose([s["clip_fraction"] for s in seen], [0, 1 / 2, 1 / 3, 2 / 4], rtol=1e-6)


def test_a_step_without_finite_gradients_does_not_spoil_the_next():
    tx = gradtx.record_metrics(gradtx.clip_by_global_norm(1.0), ("grad_norm", "clip_fraction"))
    seen = recorded(tx, [float("nan"), 2.0])
    assert np.isnan(seen[0]["grad_norm"])
    np.testing.assert_allclose([seen[1][n] for n in ("grad_norm", "clip_fraction")], [2.0, 0.5], rtol=1e-6)


def test_the_part_of_the_updates_that_round_to_nothing():
    """Numbers of bfloat16 are 2^-8 apart below 1, 2^-12 below 1/16 and 2^-11 above it."""
    params = {"w": jnp.array([1.0, 1.0, 0.0625, 0.0625], jnp.bfloat16), "b": jnp.ones(1, jnp.float32), "n": None}
    gradients = {"w": jnp.array([1.0, 0.0, 1.0, -1.0], jnp.float32), "b": jnp.ones(1, jnp.float32), "n": None}

    def lost(inner):
        tx = gradtx.record_metrics(inner, ("lost_updates",))
        _, state = jax.jit(tx.update)(gradients, tx.init(params), params)
        return float(gradtx.metrics(state)["lost_updates"])

    assert lost(gradtx.sgd(1e-3)) == 1 / 4
    assert lost(gradtx.sgd(2e-4)) == 2 / 4  # up from 1/16; the way down is half as long
    assert lost(gradtx.sgd(1e-9)) == 4 / 4
    assert lost(gradtx.sgd(0.0)) == 0.0
    assert lost(gradtx.chain(gradtx.sgd(2e-4), gradtx.keep_master())) == 0.0


def test_updates_and_inner_state_are_the_inner_ones():
    inner = gradtx.adam(0.1)
    tx = gradtx.record_metrics(inner)
    u, state = tx.update(grads(2.0), tx.init(PARAMS), PARAMS)
    expected, inner_state = inner.update(grads(2.0), inner.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(u["w"], expected["w"])
    np.testing.assert_array_equal(state.inner_state[0].mu["w"], inner_state[0].mu["w"])


@pytest.mark.parametrize("names", [("norm",), "gradient_norms"])
def test_unknown_names_are_an_error(names):
    with pytest.raises(ValueError, match="record_metrics: names must be of"):
        gradtx.record_metrics(gradtx.sgd(0.1), names)


def test_norms_of_the_parameters_need_the_parameters():
    tx = gradtx.record_metrics(gradtx.sgd(0.1), ("parameter_norm",))
    with pytest.raises(ValueError, match="record_metrics: update needs the parameters"):
        tx.update(grads(1.0), tx.init(PARAMS))
