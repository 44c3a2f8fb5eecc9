# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt

PARAMS = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}
TARGET = {"a": jnp.asarray([-1.0, 0.5]), "b": jnp.asarray(0.0)}


def gradients(params):
    return jax.tree.map(jnp.subtract, params, TARGET)


def train(tx, steps, params=PARAMS, state=None):
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        updates, state = tx.update(gradients(params), state, params)
        params = gt.apply_updates(params, updates)
    return state, params


@pytest.mark.slow
@pytest.mark.parametrize(
    "tx", [gt.schedule_free_sgd(0.5), gt.schedule_free_adamw(0.1), gt.gpa_adamw(0.1, 0.9)], ids=repr
)
def test_the_average_converges(tx):
    state, params = train(tx, 200)
    for n, x in gt.eval_params(state, params).items():
        np.testing.assert_allclose(x, TARGET[n], atol=0.1)


def test_a_state_of_optax_goes_on():
    ours, theirs = gt.schedule_free_sgd(0.5), optax.contrib.schedule_free_sgd(0.5)
    state, params = train(theirs, 3)
    for n, x in optax.contrib.schedule_free_eval_params(state, params).items():
        np.testing.assert_allclose(gt.eval_params(train(ours, 3)[0], params)[n], x, rtol=1e-6)
    _, more = train(ours, 2, params, state)
    _, expected = train(theirs, 2, params, state)
    for n in PARAMS:
        np.testing.assert_allclose(more[n], expected[n], rtol=1e-6)


def test_inside_a_chain_and_a_mask():
    """What the mask leaves out passes: here the gradient itself is the update."""
    whole = gt.schedule_free_sgd(0.5)
    some = gt.chain(gt.clip(100.0), gt.masked(whole, {"a": True, "b": False}))
    state, params = train(whole, 3)
    masked_state, masked_params = train(some, 3)
    np.testing.assert_allclose(masked_params["a"], params["a"], rtol=1e-6)
    np.testing.assert_allclose(masked_params["b"], 3.0 * 2**3)
    found = gt.eval_params(masked_state, masked_params)
    np.testing.assert_allclose(found["a"], gt.eval_params(state, params)["a"], rtol=1e-6)
    np.testing.assert_array_equal(found["b"], masked_params["b"])


def test_a_rate_that_starts_at_zero_leaves_the_parameters():
    tx = gt.schedule_free_sgd(lambda count: 0.0 * count.astype(float))
    state, params = train(tx, 2)
    for n in PARAMS:
        np.testing.assert_array_equal(params[n], PARAMS[n])
        np.testing.assert_array_equal(gt.eval_params(state, params)[n], PARAMS[n])


def test_the_layout_does_not_depend_on_schedules():
    """Where optax's state holds no schedule, ours holds none: the step count is the state's own."""
    for rate in (0.1, lambda count: 0.1 + 0.0 * count.astype(float)):
        state = gt.schedule_free_sgd(rate, warmup_steps=None).init(PARAMS)
        assert type(state) is gt.states.ScheduleFreeState and state.step_count == 1


def test_small_steps_are_not_lost():
    """The update is made of differences, so it is exact where the parameters' own rounding is a tenth of it."""
    params = jnp.full(3, 1000.0)
    tx = gt.schedule_free_sgd(1.0)
    state = tx.init(params)
    updates, _ = tx.update(jnp.full(3, 1e-5), state, params)
    np.testing.assert_allclose(updates, -1e-5, rtol=1e-6)


def test_bad_input():
    for make in (lambda b1: gt.schedule_free_sgd(0.1, b1=b1), lambda b1: gt.gpa_adamw(0.1, mu_y=b1)):
        with pytest.raises(ValueError, match=r"must be in \(0, 1\], got 0.0"):
            make(0.0)
    tx = gt.schedule_free(gt.sgd(0.1), 0.1)
    with pytest.raises(ValueError, match="update needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(TypeError, match="schedule_free: state must be the ScheduleFreeState"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))
    tx = gt.primal_averaging(gt.sgd(0.1))
    with pytest.raises(ValueError, match="primal_averaging: update needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(TypeError, match="primal_averaging: state must be the PrimalAveragingState"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))
    with pytest.raises(TypeError, match="primal_averaging: base_optimizer must be a transformation"):
        gt.primal_averaging(0.1)
