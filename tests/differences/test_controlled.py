# SPDX-License-Identifier: Apache-2.0
"""Where optax 0.2.8 and gradtx differ in Lookahead, in control by a metric, and in target networks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_lookahead_of_plain_parameters():
    """Optax needs the pair, in `update` at least; gradtx keeps the slow parameters in the state."""
    params, g = jnp.ones(2), jnp.full(2, 0.5)
    ours, theirs = (m.lookahead(optax.sgd(1.0), 1, 0.5) for m in (gt, optax))
    updates, _ = ours.update(g, ours.init(params), params)
    np.testing.assert_allclose(updates, -0.25)
    with pytest.raises(AttributeError):
        theirs.update(g, theirs.init(params), params)


def test_a_synced_pair_has_memory_of_its_own():
    params = jnp.ones(2)
    for m, same in ((optax, True), (gt.states, False)):
        pair = m.LookaheadParams.init_synced(params)
        assert (pair.fast.unsafe_buffer_pointer() == pair.slow.unsafe_buffer_pointer()) is same


def scales(tx, values):
    g = jnp.ones(2)
    state, found = tx.init(g), []
    for value in values:
        updates, state = tx.update(g, state, value=jnp.asarray(value, jnp.float32))
        found.append(float(updates[0]))
    return found


def test_the_margin_of_a_negative_metric():
    """Optax: best (1 - rtol), which lies above a negative best."""
    assert scales(optax.contrib.reduce_on_plateau(0.5, 1), [-3.0] * 4) == [1.0] * 4
    assert scales(gt.reduce_on_plateau(0.5, 1), [-3.0] * 4) == [1.0, 0.5, 0.25, 0.125]


def test_no_patience():
    """Optax reduces at the first value, which cannot have been a plateau, and never again."""
    assert scales(optax.contrib.reduce_on_plateau(0.5, 0), [1.0] * 5) == [0.5] * 5
    with pytest.raises(ValueError, match="reduce_on_plateau: patience must be a whole number >= 1, got 0"):
        gt.reduce_on_plateau(0.5, 0)


def test_an_infinite_metric():
    """In optax it is the best for ever."""
    values = [1.0, -np.inf, 0.8, 0.6, 0.4]
    assert scales(optax.contrib.reduce_on_plateau(0.5, 3), values)[-1] == 0.5
    assert scales(gt.reduce_on_plateau(0.5, 3), values)[-1] == 1.0


def test_metrics_are_compared_in_float32():
    """Optax keeps them in the dtype of the parameters: 1.001 is 1 in bfloat16."""
    for f, dtype in ((optax.contrib.reduce_on_plateau, jnp.bfloat16), (gt.reduce_on_plateau, jnp.float32)):
        assert f().init(jnp.ones(2, jnp.bfloat16)).best_value.dtype == dtype


def test_both_margins_may_be_zero():
    with pytest.raises(ValueError):
        optax.contrib.reduce_on_plateau(0.5, 1, 0.0)
    assert scales(gt.reduce_on_plateau(0.5, 1, 0.0), [1.0, 0.9999, 0.9999]) == [1, 1, 0.5]


def test_target_networks_keep_their_dtype():
    new, old = jnp.ones(2), jnp.zeros(2, jnp.bfloat16)
    assert optax.incremental_update(new, old, 0.5).dtype == jnp.float32
    assert gt.tree.incremental_update(new, old, 0.5).dtype == jnp.bfloat16
    with pytest.raises(TypeError):
        optax.periodic_update(new, old, jnp.asarray(2), 2)
    assert jax.jit(gt.tree.periodic_update)(new, old, jnp.asarray(2), 2).dtype == jnp.bfloat16
    assert optax.incremental_update(jnp.ones(2), jnp.zeros((3, 1)), 0.5).shape == (3, 2)
    with pytest.raises(ValueError, match=r"has shape \(2,\)"):
        gt.tree.incremental_update(jnp.ones(2), jnp.zeros((3, 1)), 0.5)
