# SPDX-License-Identifier: Apache-2.0
"""What functions of the step may return: real numbers and conditions. Anything else is an error that names them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.schedules import linear

PARAMS = {"w": jnp.ones((2, 3))}


def nothing(step):
    return None


def imaginary(step):
    return 0.1j


def several(step):
    return [0.1]


def decided(step):
    return 0.1 if step < 3 else 0.01


def in_numpy(step):
    return np.sqrt(step)


def early(step):
    return step < 2


def takes(schedule: Any) -> list:
    return [
        gradtx.adam(schedule),
        gradtx.scale_by_adam(b1=schedule),
        gradtx.scale_by_schedule(schedule),
        gradtx.lookahead(gradtx.sgd(0.1), 2, schedule),
        gradtx.sgd(linear(3) * schedule),
        gradtx.sgd(gradtx.join_schedules([linear(3), schedule], [1])),
        gradtx.fromage(schedule),
        gradtx.schedule_free_sgd(schedule),
        gradtx.groups([("w", {"learning_rate": schedule})], gradtx.sgd(0.1)),
        gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=schedule),
        gradtx.MultiSteps(gradtx.sgd(0.1), schedule),
    ]


def stepped(tx: Any) -> Any:
    return jax.eval_shape(lambda g: tx.update(g, tx.init(g), g)[0], PARAMS)


@pytest.mark.parametrize("schedule", [nothing, imaginary, several])
def test_a_schedule_that_returns_no_real_number_is_named(schedule):
    for tx in takes(schedule):
        with pytest.raises(TypeError, match=f"schedule .*{schedule.__name__}.* must return a real number, got"):
            stepped(tx)


@pytest.mark.parametrize("schedule", [decided, in_numpy])
def test_a_schedule_that_cannot_be_traced_is_named(schedule):
    for tx in takes(schedule):
        with pytest.raises(TypeError, match=f"schedule .*{schedule.__name__}.*not known under jit: use jnp.where"):
            jax.eval_shape(tx.update, PARAMS, jax.eval_shape(lambda tx=tx: tx.init(PARAMS)), PARAMS)


def test_a_condition_is_0_or_1():
    tx = gradtx.scale_by_schedule(early)
    state, found = tx.init(PARAMS), []
    for _ in range(4):
        updates, state = tx.update(PARAMS, state)
        found.append(float(updates["w"][0, 0]))
    assert found == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("k", [0, -1, jnp.nan, 0.4, jnp.asarray(0)])
def test_a_round_of_less_than_one_call(k):
    tx = gradtx.MultiSteps(gradtx.sgd(0.1), lambda step: k)
    with pytest.raises(ValueError, match="MultiSteps: every_k_schedule must be at least 1 at each step, got"):
        tx.init(PARAMS)
    later = gradtx.MultiSteps(gradtx.sgd(0.1), lambda step: jnp.where(step < 1, 1, k))
    _, state = later.update(PARAMS, later.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match="MultiSteps: every_k_schedule must be at least 1 at each step, got"):
        later.update(PARAMS, state, PARAMS)


def test_a_round_of_a_fraction_of_calls():
    with pytest.raises(ValueError, match="MultiSteps: every_k_schedule must be a whole number >= 1, got 2.5"):
        gradtx.MultiSteps(gradtx.sgd(0.1), 2.5)
    for k in (3.0, lambda step: 2.6):
        tx = gradtx.MultiSteps(gradtx.sgd(0.1), k)
        state, made = tx.init(PARAMS), []
        for _ in range(3):
            _, state = tx.update(PARAMS, state, PARAMS)
            made.append(bool(tx.has_updated(state)))
        assert made == [False, False, True]
