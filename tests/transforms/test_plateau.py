# SPDX-License-Identifier: Apache-2.0
"""Control by a metric: what counts as an improvement, what is published, and when. Formulas: tests/formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx.testing import check_contract

PARAMS = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}


def published(tx, values, name):
    """What the stage publishes after each value, in a scan."""

    def step(state, value):
        _, state = tx.update(PARAMS, state, PARAMS, value=value)
        return state, gt.metrics(state)[name]

    return np.asarray(jax.lax.scan(step, tx.init(PARAMS), jnp.asarray(values, jnp.float32))[1])


def test_patience_is_in_updates():
    scales = published(gt.reduce_on_plateau(0.5, 3), [1.0] * 8, "scale")
    np.testing.assert_array_equal(scales, [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])


def test_a_mean_of_several_values_is_one_metric():
    tx = gt.reduce_on_plateau(0.5, 1, accumulation_size=2)
    np.testing.assert_array_equal(published(tx, [3, 1, 0, 4, 1, 1], "scale"), [1, 1, 1, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(published(tx, [3, 1, 0, 4, 1, 1], "best_value"), [np.inf, 2, 2, 2, 2, 1])


@pytest.mark.parametrize("offset", [5.0, 0.0, -5.0])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_sign_of_the_metric_does_not_matter(offset, mode):
    sign = 1 if mode == "min" else -1
    tx = gt.reduce_on_plateau(0.5, 2, mode=mode)
    still = published(tx, [offset] * 6, "scale")
    np.testing.assert_array_equal(still, [1, 1, 0.5, 0.5, 0.25, 0.25])
    better = published(tx, [offset - sign * 0.1 * i for i in range(6)], "scale")
    np.testing.assert_array_equal(better, np.ones(6))
    worse = published(tx, [offset + sign * 0.1 * i for i in range(6)], "scale")
    np.testing.assert_array_equal(worse, still)


def test_the_margin_is_relative_to_the_size_of_the_best_plus_absolute():
    for best in (10.0, -10.0):
        tx = gt.reduce_on_plateau(0.5, 1, rtol=0.1, atol=0.5)  # a margin of 1.5
        np.testing.assert_array_equal(published(tx, [best, best - 1.4], "scale"), [1, 0.5])
        np.testing.assert_array_equal(published(tx, [best, best - 1.6], "scale"), [1, 1])
    # Any difference counts without a margin.
    np.testing.assert_array_equal(
        published(gt.reduce_on_plateau(0.5, 1, 0.0), [1, 0.999999, 0.999999], "scale")[-2:], [1, 0.5]
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_improvement_and_leaves_no_trace(bad):
    for mode in ("min", "max"):
        tx = gt.reduce_on_plateau(0.5, 2, accumulation_size=2, mode=mode)
        values = [1, 1, bad, 1, 1, 1]
        np.testing.assert_array_equal(published(tx, values, "best_value")[1:], np.ones(5))
        np.testing.assert_array_equal(published(tx, values, "scale"), [1, 1, 1, 1, 1, 0.5])


def test_the_best_is_noticed_while_cooling_down():
    tx = gt.reduce_on_plateau(0.5, 1, cooldown=2)
    np.testing.assert_array_equal(published(tx, [5, 5, 1, 5, 5], "best_value"), [5, 5, 1, 1, 1])
    np.testing.assert_array_equal(published(tx, [5, 5, 1, 5, 5], "scale"), [1, 0.5, 0.5, 0.5, 0.25])


def test_stopping():
    stops = published(gt.early_stopping(2), [3, 2, 2.5, 1, 1, 1, 0, 0], "should_stop")
    np.testing.assert_array_equal(stops, [False] * 5 + [True] * 3)  # and it does not take it back
    stops = published(gt.early_stopping(2, mode="max"), [3, 4, 4, 5, 5, 4], "should_stop")
    np.testing.assert_array_equal(stops, [False] * 5 + [True])
    stops = published(gt.early_stopping(1, accumulation_size=3), [1, 2, 3, 3, 2, 1], "should_stop")
    np.testing.assert_array_equal(stops, [False] * 5 + [True])


def test_stopping_lets_updates_pass_and_keeps_the_best_parameters():
    tx = gt.chain(gt.sgd(1.0), gt.early_stopping(2, keep_best=True))
    params, state, seen = PARAMS, tx.init(PARAMS), []
    for value in (3.0, 1.0, 2.0, 2.0):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params, value=value)
        seen.append(params)
        params = gt.apply_updates(params, updates)
    for n in PARAMS:
        np.testing.assert_allclose(params[n], PARAMS[n] - 4.0)
        np.testing.assert_allclose(gt.eval_params(state, params)[n], seen[1][n])
    assert bool(gt.metrics(state)["should_stop"])


def test_the_best_of_parameters_without_a_gradient():
    """It is what they are now if they never had one, and what was kept of them while they pause."""
    tx = gt.early_stopping(keep_best=True)
    params = {"never": jnp.zeros(2), "pauses": jnp.zeros(2)}
    state = tx.init(params)
    one, g = jnp.ones(2), {"never": None, "pauses": jnp.ones(2)}
    _, state = tx.update(g, state, params, value=1.0)
    after = {"never": 2 * one, "pauses": 3 * one}
    _, state = tx.update({"never": None, "pauses": None}, state, after, value=2.0)
    best = gt.eval_params(state, after)
    np.testing.assert_array_equal(best["never"], 2 * one)
    np.testing.assert_array_equal(best["pauses"], 0 * one)


def test_without_keeping_there_are_no_copies_and_evaluation_is_where_the_parameters_are():
    tx = gt.early_stopping(2)
    assert all(x.shape == () for x in jax.tree.leaves(tx.init({"a": jnp.ones(3)})))
    assert gt.eval_params(tx.init(PARAMS), PARAMS)["a"] is PARAMS["a"]


@pytest.mark.parametrize(
    "tx", [gt.early_stopping(2, keep_best=True), gt.reduce_on_plateau(0.5, 1, accumulation_size=2, mode="max")]
)
def test_contract(tx):
    check_contract(tx, PARAMS, value=jnp.asarray(1.0))


@pytest.mark.parametrize("make", [gt.reduce_on_plateau, gt.early_stopping])
def test_bad_input(make):
    tx = make()
    with pytest.raises(ValueError, match=f"{make.__name__}: update needs value"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=rf"{make.__name__}: value must be a scalar, got shape \(2,\)"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.ones(2))
    with pytest.raises(ValueError, match="patience must be a whole number >= 1, got 0"):
        make(patience=0)
    with pytest.raises(ValueError, match="mode must be one of"):
        make(mode="best")
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1)  # whole numbers are numbers
