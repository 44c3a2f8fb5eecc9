# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

PARAMS = {"w": jnp.asarray([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.asarray(0.5)}
NAN = float("nan")


@pytest.mark.parametrize("bound", [0, 2, 100])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.usefixtures("standard_promotion")
def test_optax_s_numbers_and_states(bound, jit):
    """Until it gives up, and after: what is not finite goes to the inner transformation then."""
    ours, theirs = gt.apply_if_finite(optax.trace(0.5), bound), optax.apply_if_finite(optax.trace(0.5), bound)
    step, their_step = (jax.jit(tx.update) if jit else tx.update for tx in (ours, theirs))
    state, their_state = ours.init(PARAMS), theirs.init(PARAMS)
    assert type(state).__name__ == type(their_state).__name__ and state._fields == their_state._fields
    for factor in [1.0, NAN, 2.0, float("inf"), NAN, -0.5, NAN, NAN, NAN, NAN, 1.0, NAN]:
        g = {"w": PARAMS["w"].at[0, 1].multiply(factor), "b": PARAMS["b"] * 3}
        updates, state = step(g, state, PARAMS)
        their_updates, their_state = their_step(g, their_state, PARAMS)
        have, want = jax.tree.leaves((updates, state)), jax.tree.leaves((their_updates, their_state))
        assert [(x.shape, x.dtype) for x in have] == [(x.shape, x.dtype) for x in want]
        for a, b in zip(have, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_large_gradients_are_finite():
    """Their norm is not in float32, which is not what is asked here."""
    tx = gt.apply_if_finite(gt.sgd(1.0), 3)
    updates, state = tx.update({"w": PARAMS["w"] * 1e30, "b": PARAMS["b"]}, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], PARAMS["w"] * -1e30)
    assert bool(state.last_finite)


def test_metrics_and_evaluation():
    tx = gt.chain(gt.apply_if_finite(gt.chain(gt.sgd(2.0), gt.params_ema(0.5)), 5))
    state = tx.init(PARAMS)
    for factor in (1.0, NAN, NAN):
        _, state = tx.update(jax.tree.map(lambda p, f=factor: p * f, PARAMS), state, PARAMS)
    assert {n: int(x) for n, x in gt.metrics(state, tx).items()} == {
        "notfinite_count": 2,
        "last_finite": 0,
        "total_notfinite": 2,
        "learning_rate": 2,
        "step_skipped": 1,
    }
    for x in jax.tree.leaves((state, gt.eval_params(state, PARAMS))):
        assert np.isfinite(x).all()


def test_nothing_to_look_at_is_finite():
    tx = gt.apply_if_finite(gt.sgd(0.1), 3)
    for g in ({}, {"w": None}, {"n": np.zeros(2, jax.dtypes.float0)}):
        updates, state = tx.update(g, tx.init({}), None)
        assert bool(state.last_finite) and jax.tree.leaves(updates) == []


def test_bad_input():
    with pytest.raises(ValueError, match="apply_if_finite: max_consecutive_errors must be a whole number >= 0, got -1"):
        gt.apply_if_finite(gt.sgd(0.1), -1)
    tx = gt.apply_if_finite(gt.sgd(0.1), 1)
    with pytest.raises(TypeError, match="apply_if_finite: state must be the ApplyIfFiniteState"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))
