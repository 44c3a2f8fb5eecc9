# SPDX-License-Identifier: Apache-2.0
"""Lookahead with its slow parameters in the state, and in the caller's hands as in optax. Formulas: tests/formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.testing import check_contract

PARAMS = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}


def gradient(params):
    return jax.tree.map(lambda p: p - jnp.sin(2 * p) / 2, params)


def train(tx, params, steps, of=lambda params: params):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(gradient(of(params)), state, params)
        params = gt.apply_updates(params, updates)
    return params, state


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("period", [1, 3])
def test_pairs_are_optax_s(period, reset):
    fast = optax.adamw(0.1, weight_decay=0.3)
    ours, theirs = (m.lookahead(fast, period, 0.6, reset) for m in (gt, optax))
    pairs = gt.states.LookaheadParams.init_synced(PARAMS), optax.LookaheadParams.init_synced(PARAMS)
    states = ours.init(pairs[0]), theirs.init(pairs[1])
    for _ in range(8):
        found = []
        for tx, pair, state in zip((ours, theirs), pairs, states, strict=True):
            updates, state = jax.jit(tx.update)(gradient(pair.fast), state, pair)
            found.append((updates, optax.apply_updates(pair, updates), state))
        for a, b in zip(*map(jax.tree.leaves, found), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        pairs, states = tuple(f[1] for f in found), tuple(f[2] for f in found)


@pytest.mark.parametrize("tx", [gt.lookahead(gt.adam(0.1), 3, 0.5), gt.lookahead(gt.adam(0.1), 2, 0.5, True)])
def test_the_pair_and_the_state_are_two_places_of_the_same_slow_parameters(tx):
    for steps in (0, 1, 2, 3, 7):
        params, state = train(tx, PARAMS, steps)
        pair, pair_state = train(tx, gt.states.LookaheadParams.init_synced(PARAMS), steps, lambda pair: pair.fast)
        slow = gt.eval_params(state, params)
        for n in PARAMS:
            np.testing.assert_allclose(params[n], pair.fast[n], rtol=1e-6)
            np.testing.assert_allclose(slow[n], pair.slow[n], rtol=1e-6)
        assert gt.eval_params(pair_state, pair) is pair.slow


def test_after_a_synchronization_both_are_the_same():
    params, state = train(gt.lookahead(gt.sgd(0.3), 3, 0.5), PARAMS, 6)
    for n, slow in gt.eval_params(state, params).items():
        np.testing.assert_allclose(slow, params[n], rtol=1e-6)
    _, state = train(gt.lookahead(gt.sgd(0.3), 3, 0.5), PARAMS, 7)
    assert int(state.steps_since_sync) == 1


def test_the_optimizer_starts_anew_if_asked():
    for reset, count in ((False, 7), (True, 1)):
        _, state = train(gt.lookahead(gt.adam(0.3), 3, 0.5, reset), PARAMS, 7)
        assert int(state.fast_state[0].count) == count


def test_slow_parameters_of_low_precision_move_by_less_than_a_rounding():
    params = jnp.ones(2, jnp.bfloat16)
    tx = gt.lookahead(gt.sgd(1.0), 1, 0.01)
    state = tx.init(params)
    for _ in range(40):
        updates, state = tx.update(jnp.full(2, 0.05, jnp.bfloat16), state, params)
        params = gt.apply_updates(params, updates)
    assert state.slow.dtype == jnp.float32 and params.dtype == jnp.bfloat16
    assert gt.eval_params(state, params).dtype == jnp.bfloat16
    np.testing.assert_allclose(state.slow, 1 - 40 * 0.01 * 0.05, atol=0.01)  # each step is an eighth of an ulp
    assert gt.lookahead(gt.sgd(1.0), 1, 0.5, slow_dtype=jnp.bfloat16).init(params).slow.dtype == jnp.bfloat16


def test_without_gradients():
    for params in (PARAMS, gt.states.LookaheadParams.init_synced(PARAMS)):
        tx = gt.lookahead(gt.adam(0.1), 1, 0.5)
        updates, state = tx.update({"a": PARAMS["a"], "b": None}, tx.init(params), params)
        after = gt.apply_updates(params, updates)
        answer = gt.eval_params(state, after)
        np.testing.assert_array_equal(answer["b"], PARAMS["b"])
        assert not np.allclose(answer["a"], PARAMS["a"])
    assert updates.fast["b"] is None and updates.slow["b"] is None


@pytest.mark.slow
def test_contract():
    check_contract(gt.lookahead(gt.chain(gt.adam(0.1), gt.params_ema(0.9)), 2, 0.7, True), PARAMS)


def test_a_pair_shares_no_memory():
    pair = gt.states.LookaheadParams.init_synced(PARAMS)
    assert pair.fast["a"].unsafe_buffer_pointer() != pair.slow["a"].unsafe_buffer_pointer()


def test_bad_input():
    tx = gt.lookahead(gt.sgd(0.1), 2, 0.5)
    with pytest.raises(ValueError, match="lookahead: update needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(TypeError, match="lookahead: state must be the LookaheadState"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))
    with pytest.raises(ValueError, match="init had LookaheadParams, update has dict"):
        tx.update(PARAMS, tx.init(gt.states.LookaheadParams.init_synced(PARAMS)), PARAMS)
    with pytest.raises(ValueError, match="init had plain ones, update has LookaheadParams"):
        tx.update(PARAMS, tx.init(PARAMS), gt.states.LookaheadParams.init_synced(PARAMS))
    with pytest.raises(TypeError, match="fast_optimizer must be a transformation, got the factory sgd"):
        gt.lookahead(gt.sgd, 2, 0.5)


def test_schedules_inside_and_of_its_own_are_published():
    rate = gt.linear_schedule(1.0, 0.0, 10)
    for tx in (gt.lookahead(gt.sgd(rate), 2, 0.5), gt.lookahead(gt.sgd(rate), 2, rate)):
        _, state = train(tx, PARAMS, 3)
        seen = gt.metrics(state, tx)
        assert any(name.endswith("learning_rate") for name in seen)
        np.testing.assert_allclose(list(seen.values()), 0.8, rtol=1e-6)
        assert set(gt.metrics(tx.init(PARAMS), tx)) == set(seen)
