# SPDX-License-Identifier: Apache-2.0
"""Averages of the parameters through chains, masks, missing gradients and low precision. Formulas: tests/formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

PARAMS = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}
ONES = {"a": jnp.ones(2), "b": jnp.ones(())}
AVERAGES = [gt.params_ema(0.5), gt.params_ema(0.5, debias=True), gt.lawa(2), gt.asgd(0.1, t0=0.0)]


def train(tx, steps, gradients=ONES, params=PARAMS):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(gradients, state, params)
        params = gt.apply_updates(params, updates)
    return state, params


@pytest.mark.parametrize("tx", AVERAGES, ids=repr)
def test_before_the_first_step_the_answer_is_the_parameters(tx):
    found = gt.eval_params(tx.init(PARAMS), PARAMS)
    for n in PARAMS:
        np.testing.assert_array_equal(found[n], PARAMS[n])


@pytest.mark.parametrize("tx", AVERAGES, ids=repr)
def test_a_parameter_without_gradients_answers_itself(tx):
    state, params = train(tx, 3, {"a": ONES["a"], "b": None})
    found = gt.eval_params(state, params)
    np.testing.assert_array_equal(found["b"], PARAMS["b"])
    assert not np.allclose(found["a"], params["a"])


def test_an_average_of_some_parameters():
    state, params = train(gt.chain(gt.sgd(0.5), gt.masked(gt.params_ema(0.5), {"a": True, "b": False})), 2)
    found = gt.eval_params(state, params)
    np.testing.assert_allclose(found["a"], [0.25 * 1.0 + 0.25 * 0.5 + 0.5 * 0.0, 0.25 * 2.0 + 0.25 * 1.5 + 0.5 * 1.0])
    np.testing.assert_allclose(found["b"], 2.0)


@pytest.mark.parametrize(
    "tx, later",
    [
        (gt.chain(gt.params_ema(0.5), gt.sgd(0.5)), "scale"),
        (gt.chain(gt.chain(gt.sgd(0.5), gt.lawa(2)), gt.reduce_on_plateau()), "reduce_on_plateau"),
        (gt.named_chain(("average", gt.params_ema(0.5)), ("clip", gt.clip(1.0))), "clip"),
        (gt.masked(gt.chain(gt.params_ema(0.5), gt.add_noise(0.1, 0.5, 0)), True), "add_noise"),
    ],
)
def test_a_stage_that_changes_updates_after_an_average_is_an_error(tx, later):
    """The average would take gradients, or longer steps than are made, for steps."""
    with pytest.raises(
        ValueError, match=f"chain: (params_ema|lawa) takes p . u .*, but {later} changes u after it: put"
    ):
        tx.init(PARAMS)


def test_what_may_come_after_an_average():
    mine = gt.stateless(lambda u, p: u)
    for last in (gt.early_stopping(), gt.lawa(2), gt.round_stochastically(0), mine, gt.masked(gt.clip(1.0), False)):
        gt.chain(gt.adam(0.1), gt.params_ema(0.5), last).init(PARAMS)


def test_low_precision_parameters_are_averaged_in_float32():
    """A bfloat16 average with decay 0.999 would stay where it started."""
    params = jnp.zeros((), jnp.bfloat16)
    for tx in (gt.params_ema(0.999), gt.params_ema(0.999, debias=True)):
        state = tx.init(params)
        assert state.ema.dtype == jnp.float32
        for _ in range(10):
            _, state = tx.update(jnp.ones((), jnp.bfloat16), state, params)
        expected = 1.0 if tx.arguments["debias"] else 1 - 0.999**10
        np.testing.assert_allclose(state.ema, expected, rtol=1e-5)
        assert gt.eval_params(state, params).dtype == jnp.bfloat16
    tx = gt.lawa(3, snapshot_dtype=jnp.bfloat16)
    assert tx.init(params).snapshots.dtype == jnp.bfloat16 and tx.init(params).snapshots.shape == (3,)


def test_ftrl_makes_parameters_exactly_zero():
    """With l1, where the gradients are small; the others keep their signs against the gradients."""
    params, g = jnp.zeros(3), jnp.asarray([0.01, 1.0, -1.0])
    _, params = train(gt.ftrl(0.1, l1=0.5), 5, g, params)
    assert params[0] == 0.0 and params[1] < 0 < params[2]
