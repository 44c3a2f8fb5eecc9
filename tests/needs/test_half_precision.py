# SPDX-License-Identifier: Apache-2.0
"""Gradients in float16 and bfloat16: nothing overflows, underflows or rounds to 1 on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")

HALF = {"w": jnp.full([1000], 10.0, jnp.float16)}  # of norm 316, whose square does not fit


def first_update(tx, g):
    return tx.update(g, tx.init(g), g)


def test_optax_adam_gives_nan_for_a_zero_gradient():
    zero = jax.tree.map(jnp.zeros_like, HALF)
    assert np.isnan(np.asarray(first_update(optax.adam(0.1), zero)[0]["w"])).all()


@pytest.mark.parametrize("make", [gt.adam, gt.adamw, gt.rmsprop, gt.adagrad, gt.nadam, gt.adabelief, gt.lamb])
def test_ours_do_not(make):
    zero = jax.tree.map(jnp.zeros_like, HALF)
    updates, state = first_update(make(0.1), zero)
    for x in jax.tree.leaves((updates, state)):
        assert np.isfinite(np.asarray(x, np.float32)).all()


def test_optax_clips_to_zero():
    updates, _ = first_update(optax.clip_by_global_norm(1.0), HALF)
    assert not np.asarray(updates["w"]).any()


def test_ours_clips_to_the_norm():
    updates, _ = first_update(gt.clip_by_global_norm(1.0), HALF)
    np.testing.assert_allclose(gt.global_norm(updates), 1.0, rtol=1e-3)


def idle(tx, state):
    """The state after 2,000 steps with a gradient of 0."""
    zero = jnp.zeros([], jnp.bfloat16)
    return jax.lax.fori_loop(0, 2000, lambda i, state: tx.update(zero, state)[1], state)


def test_optax_keeps_a_second_moment_in_bfloat16_that_never_decays():
    one, tx = jnp.ones([], jnp.bfloat16), optax.scale_by_adam(b2=0.999)
    state = idle(tx, tx.update(one, tx.init(one))[1])
    assert state.nu.dtype == jnp.bfloat16 and float(state.nu) > 0.9e-3


def test_ours_decays():
    one, tx = jnp.ones([], jnp.bfloat16), gt.scale_by_adam(b2=0.999)
    state = idle(tx, tx.update(one, tx.init(one))[1])
    np.testing.assert_allclose(state.nu, 1e-3 * 0.999**2000, rtol=1e-3)


def test_a_norm_guards_its_step_also_in_float16():
    """The norm that decides is that of float32; a sum of squares in float16 would refuse every step."""
    tx = gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(8, warmup=1))
    state = tx.init(HALF)
    for factor in (1.0, 1.0, 100.0, 1e4):  # 1e4 times 10 is infinite in float16
        _, state = tx.update(jax.tree.map(lambda g, f=factor: g * jnp.float16(f), HALF), state, HALF)
    assert int(state.skipped) == 2 and int(state.rules[0].filled) == 2
    np.testing.assert_allclose(state.rules[0].values[-1], np.sqrt(1000) * 10, rtol=1e-6)
