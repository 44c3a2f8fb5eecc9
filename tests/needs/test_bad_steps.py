# SPDX-License-Identifier: Apache-2.0
"""Bad steps are left out: whatever the dtypes, for spikes too, and with a loss scale that finds itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

PARAMS = {"w": jnp.asarray([1.0, -2.0, 0.5]), "b": jnp.asarray(0.5)}
UNEQUAL = [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.bfloat16), (jnp.float16, jnp.float32)]
each_mix = pytest.mark.parametrize(("parameters", "gradients"), UNEQUAL)


def inputs(parameters, gradients):
    return jax.tree.map(parameters, PARAMS), jax.tree.map(lambda p: gradients(3 * p), PARAMS)


@each_mix
@pytest.mark.usefixtures("standard_promotion")
def test_optax_apply_if_finite_needs_equal_dtypes(parameters, gradients):
    tx = optax.apply_if_finite(optax.adam(0.1), 3)
    params, g = inputs(parameters, gradients)
    with pytest.raises(TypeError, match="cond branches must have equal output types"):
        tx.update(g, tx.init(params), params)


@each_mix
@pytest.mark.parametrize("inner", [gt.adam(0.1), optax.adam(0.1)], ids=["gradtx", "optax"])
@pytest.mark.usefixtures("standard_promotion")
def test_ours_does_not(parameters, gradients, inner):
    """Also around a transformation whose state has other types after an update, such as Optax's Adam."""
    tx = gt.apply_if_finite(inner, 3)
    params, g = inputs(parameters, gradients)

    def step(state, factor):
        updates, state = tx.update(jax.tree.map(lambda x: x * factor.astype(x.dtype), g), state, params)
        return state, updates

    state, updates = jax.lax.scan(step, tx.init(params), jnp.asarray([1.0, jnp.nan, 1.0]))
    assert int(state.total_notfinite) == 1
    assert np.all(updates["w"][1] == 0) and np.all(updates["w"][2] != 0)
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves(state))


FACTORS = [1.0, 1.1, 0.9, 1.0, 1.1, 1.0, 1000.0, 1.0]


def moved(tx):
    """How far each step of a run moves the parameters; the seventh has a spike."""
    state, found = tx.init(PARAMS), []
    for factor in FACTORS:
        updates, state = tx.update(jax.tree.map(lambda p, f=factor: p * f, PARAMS), state, PARAMS)
        found.append(float(gt.global_norm(updates)))
    return np.array(found), state


def test_optax_takes_a_spike_and_has_no_loss_scale():
    steps, _ = moved(optax.apply_if_finite(optax.sgd(1.0), 3))
    assert steps[6] > 500 * steps[0]
    assert [n for n in dir(optax) if "loss_scale" in n or "loss_scaling" in n or "spike" in n] == []


def test_ours_leaves_a_spike_out_and_says_so():
    tx = gt.guard(gt.sgd(1.0), gt.skipping.norm_spike(window=32, z=6.0, warmup=4))
    steps, state = moved(tx)
    assert steps[6] == 0 and np.all(steps[[5, 7]] > 0)
    seen = gt.metrics(state)
    assert (
        int(seen["skipped"]) == 1
        and gt.skipping.SkipReason(int(seen["last_reason"])) is gt.skipping.SkipReason.NORM_SPIKE
    )


def test_our_loss_scale_finds_the_largest_that_fits():
    tx = gt.dynamic_loss_scale(gt.sgd(0.1), growth_interval=2)

    def step(state, _):
        # Gradients of 1 in float16: a scale of 2^16 does not fit any more.
        g = jax.tree.map(lambda p: (jnp.ones_like(p) * gt.loss_scale(state)).astype(jnp.float16), PARAMS)
        updates, state = tx.update(g, state, PARAMS)
        return state, (gt.loss_scale(state), updates["b"])

    _, (scales, updates) = jax.lax.scan(step, tx.init(PARAMS), length=9)
    np.testing.assert_array_equal(scales, 2.0 ** np.array([15, 16, 15, 15, 16, 15, 15, 16, 15]))
    np.testing.assert_allclose(updates, np.where(np.arange(9) % 3 == 2, 0, -0.1), rtol=1e-6)
