# SPDX-License-Identifier: Apache-2.0
"""Rates, norms and counts are read out of any state, with shapes that are fixed at `init`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

PARAMS = {"w": jnp.full((2, 2), 2.0)}
GRADS = {"w": jnp.ones((2, 2))}
pytestmark = pytest.mark.usefixtures("standard_promotion")


def many_steps(tx, steps=3):
    def step(state, _):
        return tx.update(GRADS, state, PARAMS)[1], None

    return jax.lax.scan(step, tx.init(PARAMS), length=steps)[0]


# Optax.


def test_optax_monitor_changes_the_structure_of_its_state():
    tx = optax.monitor({"norm": optax.tree.norm})
    before = tx.init(PARAMS)
    _, after = tx.update(GRADS, before, PARAMS)
    assert before.measurements == {} and list(after.measurements) == ["norm"]
    with pytest.raises(TypeError, match="scan"):
        many_steps(tx)


def test_optax_snapshot_begins_with_the_norm_of_the_parameters():
    tx = optax.snapshot("norm", optax.tree.norm)
    assert tx.init(PARAMS).measurement["norm"] == 4.0
    assert tx.update(GRADS, tx.init(PARAMS))[1].measurement["norm"] == 2.0


def test_optax_has_no_learning_rate_in_the_state_and_no_one_count():
    tx = optax.adamw(optax.linear_schedule(1.0, 0.0, 10))
    state = tx.init(PARAMS)
    assert optax.tree.get(state, "learning_rate") is None
    with pytest.raises(KeyError, match="Found multiple"):
        optax.tree.get(state, "count")


# gradtx.


def monitored():
    return gt.chain(
        gt.monitor({"norm": gt.global_norm, "slow": gt.measure_with_ema(gt.global_norm, 0.9)}),
        gt.clip_by_global_norm(1.0),
        gt.snapshot("clipped", gt.global_norm),
        gt.adamw(gt.linear_schedule(1.0, 0.0, 10)),
    )


def test_states_keep_their_structure_and_run_in_scan():
    tx = monitored()
    start = tx.init(PARAMS)
    _, after = tx.update(GRADS, start, PARAMS)
    assert jax.tree.structure(after) == jax.tree.structure(start)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(after)] == [(x.shape, x.dtype) for x in jax.tree.leaves(start)]
    seen = gt.metrics(many_steps(tx))
    assert set(seen) == {"norm", "slow", "clipped"}
    np.testing.assert_allclose([seen[n] for n in sorted(seen)], [1.0, 2.0, 2.0], rtol=1e-5)


def test_nothing_is_measured_of_the_parameters():
    assert set(map(float, gt.metrics(monitored().init(PARAMS)).values())) == {0.0}


def test_the_rate_is_read_without_asking_for_it_in_advance():
    tx = monitored()
    seen = gt.metrics(many_steps(tx, 4), tx)
    assert float(seen["learning_rate"]) == pytest.approx(0.7)


def test_what_is_published_can_be_collected_in_scan():
    tx = monitored()

    def step(state, scale):
        _, state = tx.update(jax.tree.map(lambda g: scale * g, GRADS), state, PARAMS)
        return state, gt.metrics(state, tx)

    _, seen = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(1.0, 4.0)))(tx.init(PARAMS))
    np.testing.assert_allclose(seen["norm"], [2.0, 4.0, 6.0], rtol=1e-6)
    np.testing.assert_allclose(seen["clipped"], [1.0, 1.0, 1.0], rtol=1e-6)
