# SPDX-License-Identifier: Apache-2.0
"""One step: stages agree on it, schedules read it by one convention, and it can be set without harm to averages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import gradtx

PARAMS = {"w": jnp.ones(3)}
GRADS = {"w": jnp.array([1.0, -2.0, 0.5])}


def run(tx, steps, state=None):
    state = tx.init(PARAMS) if state is None else state
    for _ in range(steps):
        updates, state = tx.update(GRADS, state, PARAMS)
    return updates, state


def test_setting_the_count_of_optax_spoils_its_bias_correction():
    """The usual way to go back in a schedule, which resets the age of Adam's averages with it."""
    tx = optax.adam(optax.linear_schedule(0.1, 0.0, 1000))
    with jax.numpy_dtype_promotion("standard"):
        _, state = run(tx, 50)
        state = optax.tree_utils.tree_set(state, count=jnp.zeros([], jnp.int32))
        after, _ = run(tx, 1, state)
    # With constant gradients no step of Adam is longer than the rate.
    assert np.all(np.abs(after["w"]) > 1.4 * 0.1)


def test_restart_goes_back_in_the_schedule_only():
    tx = gradtx.adam(gradtx.linear_schedule(0.1, 0.0, 1000))
    before, state = run(tx, 50)
    after, _ = run(tx, 1, gradtx.restart(state, at=0))
    first, _ = run(tx, 1)
    np.testing.assert_allclose(after["w"], first["w"], rtol=1e-5)  # gradients are constant, so directions are too
    np.testing.assert_allclose(after["w"] / before["w"], 1 / 0.951, rtol=1e-5)


def test_the_first_update_reads_step_0_and_schedule_free_too():
    seen = []

    def schedule(count):
        seen.append(int(count))
        return jnp.asarray(0.1, jnp.float32)

    for tx in (gradtx.sgd(schedule), gradtx.schedule_free_sgd(schedule)):
        seen.clear()
        state = tx.init(PARAMS)
        seen.clear()
        tx.update(GRADS, state, PARAMS)
        assert set(seen) == {0}


def test_optax_begins_schedule_free_at_1():
    state = optax.contrib.schedule_free_sgd(0.1).init(PARAMS)
    assert int(state.step_count) == 1


def test_stages_agree_on_the_step_after_skipped_ones():
    rate = gradtx.linear_schedule(0.1, 0.0, 1000)
    tx = gradtx.guard(gradtx.chain(gradtx.add_decayed_weights(rate), gradtx.scale_by_adam(eps=rate), gradtx.sgd(rate)))
    state = tx.init(PARAMS)
    for factor in (1.0, jnp.inf, 1.0, jnp.nan, 1.0):
        _, state = tx.update({"w": GRADS["w"] * factor}, state, PARAMS)
    seen = gradtx.metrics(state, tx)
    values = [seen[name] for name in ("weight_decay", "eps", "learning_rate")]
    np.testing.assert_allclose(values, rate(2), rtol=1e-6)
