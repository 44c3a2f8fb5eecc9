# SPDX-License-Identifier: Apache-2.0
"""Parameters in bfloat16 that are moved by less than half the distance to their neighbors: they move all the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

STEPS, RATE = 1000, 1e-4
ONES = jnp.ones(256, jnp.bfloat16)


def end(tx, apply_updates):
    """Where 1,000 steps with a constant gradient lead, from 1."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jnp.ones(256, jnp.bfloat16), state, params)
        return (apply_updates(params, updates), state), None

    return np.asarray(jax.lax.scan(step, (ONES, tx.init(ONES)), length=STEPS)[0][0], np.float64)


@pytest.mark.usefixtures("standard_promotion")
def test_optax_leaves_them_where_they_are():
    assert (end(optax.adam(RATE), optax.apply_updates) == 1.0).all()


def test_without_a_rounding_stage_ours_stay_too_but_it_can_be_known():
    assert (end(gt.adam(RATE), gt.apply_updates) == 1.0).all()
    report = gt.precision.check_precision(gt.adam(RATE), ONES)
    assert not report.ok and report.rows[0].lost == 1.0
    tx = gt.record_metrics(gt.adam(RATE), ("lost_updates",))
    _, state = tx.update(ONES, tx.init(ONES), ONES)
    assert gt.metrics(state)["lost_updates"] == 1.0


@pytest.mark.parametrize(
    "rounding",
    [gt.round_stochastically(0), gt.compensate(), gt.error_bits(8), gt.error_bits(16), gt.keep_master()],
    ids=str,
)
def test_with_one_they_arrive(rounding):
    tx = gt.chain(gt.adam(RATE), rounding)
    np.testing.assert_allclose(end(tx, gt.apply_updates).mean(), 1 - STEPS * RATE, rtol=0.02)
    assert gt.precision.check_precision(tx, ONES).ok


@pytest.mark.usefixtures("standard_promotion")
def test_optax_applies_our_updates_as_well():
    tx = gt.chain(gt.adam(RATE), gt.keep_master())
    np.testing.assert_array_equal(end(tx, optax.apply_updates), end(tx, gt.apply_updates))
