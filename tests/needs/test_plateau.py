# SPDX-License-Identifier: Apache-2.0
"""A learning rate that falls when a metric stops improving: of any sign, small or large, counted in updates."""

import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt


def scales(tx, values):
    g = jnp.ones(2)
    state, found = tx.init(g), []
    for value in values:
        updates, state = tx.update(g, state, value=jnp.asarray(value, jnp.float32))
        found.append(float(updates[0]))
    return found


STANDS_STILL = [-4.0] * 6


@pytest.mark.usefixtures("standard_promotion")
def test_in_optax_a_negative_metric_never_reduces_the_rate():
    assert scales(optax.contrib.reduce_on_plateau(0.5, 2), STANDS_STILL) == [1.0] * 6
    assert scales(optax.contrib.reduce_on_plateau(0.5, 2), np.negative(STANDS_STILL)) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_the_sign_does_not_matter():
    for values in (STANDS_STILL, np.negative(STANDS_STILL), [0.0] * 6):
        for mode in ("min", "max"):
            assert scales(gt.reduce_on_plateau(0.5, 2, mode=mode), values) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_an_accuracy_may_be_given_as_it_is():
    assert scales(gt.reduce_on_plateau(0.5, 2, mode="max"), [0.1, 0.2, 0.3, 0.3, 0.3, 0.4]) == [1, 1, 1, 1, 0.5, 0.5]


def test_what_it_does_can_be_read():
    tx = gt.chain(gt.sgd(0.1), gt.reduce_on_plateau(0.5, 2))
    state = tx.init(jnp.ones(2))
    for value in (1.0, 2.0, 2.0, 2.0):
        _, state = tx.update(jnp.ones(2), state, value=value)
    assert gt.metrics(state) == {"scale": 0.5, "best_value": 1.0, "plateau_count": 1}
