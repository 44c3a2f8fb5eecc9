# SPDX-License-Identifier: Apache-2.0
"""One step count: what schedules read, how it is set, and the numbers a state can be asked for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = {"w": jnp.ones([3]), "b": jnp.zeros([])}
GRADS = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array(3.0)}
RATE = gradtx.linear_schedule(1.0, 0.0, 100)


def run(tx, steps, state=None):
    state = tx.init(PARAMS) if state is None else state
    for _ in range(steps):
        _, state = tx.update(GRADS, state, PARAMS)
    return state


def steps_in(state):
    """Every step count in a state, by the class that has it."""
    found = []
    for node in jax.tree.leaves(state, is_leaf=lambda x: hasattr(type(x), "counts_from")):
        if hasattr(type(node), "counts_from"):
            found += [int(getattr(node, n)) - start for n, start in type(node).counts_from.items()]
            found += steps_in([getattr(node, n) for n in node._fields if n not in type(node).counts_from])
    return found


MANY = gradtx.chain(
    gradtx.clip_by_global_norm(RATE),
    gradtx.scale_by_adam(b1=gradtx.linear_schedule(0.9, 0.8, 100)),
    gradtx.masked(gradtx.add_decayed_weights(RATE), {"w": True, "b": False}),
    gradtx.named_chain(("inner", gradtx.scale_by_lr(RATE))),
    gradtx.schedule_free_averaging(RATE),
)


def test_the_stages_of_a_chain_agree_on_the_step():
    assert steps_in(run(MANY, 7)) == [7] * 5


def test_restart_sets_the_step_of_every_schedule_and_keeps_the_averages():
    state = run(MANY, 7)
    again = gradtx.restart(state, at=40)
    assert steps_in(again) == [40] * 5
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert [x.dtype for x in jax.tree.leaves(again)] == [x.dtype for x in jax.tree.leaves(state)]
    adam, old = again[1].inner_state, state[1].inner_state
    assert int(adam.count) == 7  # how old the average is, which the bias correction needs
    np.testing.assert_array_equal(adam.mu["w"], old.mu["w"])


def test_a_restarted_run_goes_on_with_the_schedule_of_that_step():
    tx = gradtx.adam(RATE)
    whole, warm = run(tx, 20), run(tx, 5)
    u, _ = tx.update(GRADS, gradtx.restart(warm, at=20), PARAMS)
    expected, _ = tx.update(GRADS, whole, PARAMS)
    for name in PARAMS:  # the gradients are constant, so corrected moments are the same at each step
        np.testing.assert_allclose(u[name], expected[name], rtol=1e-5)


def test_restart_under_jit_and_for_dictionaries():
    tx = gradtx.named_chain(("a", gradtx.sgd(RATE)), ("b", gradtx.identity()))
    state = jax.jit(gradtx.restart)(run(tx, 2), jnp.int32(9))
    assert steps_in(state) == [9]
    assert list(state) == ["a", "b"]


@pytest.mark.parametrize("at", [-1, 0.5])
def test_restart_at_what_is_no_step_is_an_error(at):
    with pytest.raises(ValueError, match="restart: at must be a whole number of at least 0"):
        gradtx.restart(run(gradtx.sgd(RATE), 1), at)


def test_counts_saturate():
    last = jnp.iinfo(jnp.int32).max
    state = run(gradtx.sgd(RATE), 3, gradtx.restart(run(gradtx.sgd(RATE), 0), last - 1))
    assert steps_in(state) == [last]


class Counted(NamedTuple):
    count: jax.Array
    largest: dict

    def metrics(self):
        return {"largest": jnp.max(jnp.stack(jax.tree.leaves(self.largest)))}


@gradtx.transformation
def remember_largest(power: gradtx.typing.Positive = 1.0):
    return gradtx.per_parameter(
        lambda p: jnp.zeros([]), lambda g, m, p, t: (g**power, jnp.maximum(m, jnp.max(jnp.abs(g)))), Counted
    )


def test_a_home_made_rule_publishes():
    tx = gradtx.chain(gradtx.identity(), remember_largest())
    assert gradtx.metrics(run(tx, 1)) == {"largest": 3.0}


def test_scheduled_hyperparameters_are_read_without_wrapping():
    tx = gradtx.chain(remember_largest(gradtx.linear_schedule(1.0, 11.0, 10)), gradtx.adamw(RATE, weight_decay=RATE))
    seen = gradtx.metrics(run(tx, 11), tx)
    assert seen["power"] == 11.0
    assert seen["largest"] == 3.0
    np.testing.assert_allclose([v for k, v in seen.items() if k.endswith("learning_rate")], [0.9], rtol=1e-6)
    np.testing.assert_allclose([v for k, v in seen.items() if k.endswith("weight_decay")], [0.9], rtol=1e-6)
    assert set(gradtx.metrics(tx.init(PARAMS), tx)) == set(seen)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: gradtx.masked(tx, True),
        lambda tx: gradtx.named_chain(("only", tx)),
        lambda tx: gradtx.cautious(tx, descent=True),
        lambda tx: gradtx.schedule_free(tx, RATE),
        lambda tx: gradtx.primal_averaging(tx, mu_x=lambda t: 0.9),
        lambda tx: gradtx.split_real_and_imaginary(gradtx.masked(tx, True)),
        lambda tx: gradtx.mechanize(tx),
        lambda tx: gradtx.chain(gradtx.chain(tx)),
    ],
)
def test_metrics_find_schedules_inside_wrappers(wrap):
    tx = wrap(gradtx.sgd(RATE))
    seen = gradtx.metrics(run(tx, 21), tx)
    rates = [v for k, v in seen.items() if k.endswith("learning_rate")]
    np.testing.assert_allclose(rates, 0.8, rtol=1e-6)
    assert rates


def test_metrics_inside_scan():
    tx = gradtx.sgd(RATE)

    def step(state, _):
        _, state = tx.update(GRADS, state, PARAMS)
        return state, gradtx.metrics(state, tx)

    _, seen = jax.lax.scan(step, tx.init(PARAMS), length=3)
    (rates,) = seen.values()
    np.testing.assert_allclose(rates, [1.0, 0.99, 0.98], rtol=1e-6)
