# SPDX-License-Identifier: Apache-2.0
"""Starting anew every so many updates: moments do, schedules do not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.spikes import SHAPES, assert_equal, gradients, run

SEQUENCE = gradients(20, ())
PARAMS = {n: jnp.ones(shape) for n, shape in SHAPES.items()}


@pytest.mark.parametrize("steps", [1, 3, 7, 100])
@pytest.mark.parametrize("inner", [gt.scale_by_adam(), gt.trace(0.9), gt.adamw(0.1)], ids=repr)
def test_every_so_many_updates_are_those_of_a_new_run(inner, steps):
    found, states = run(gt.reset_every(inner, steps), SEQUENCE, np.float32)
    expected = [u for i in range(0, 20, steps) for u in run(inner, SEQUENCE[i : i + steps], np.float32)[0]]
    assert_equal(found, expected, rtol=1e-6)
    assert int(states[-1].count) == 20


def test_schedules_go_on():
    rate = gt.linear_schedule(1.0, 0.0, 20)
    inner = gt.chain(gt.scale_by_adam(b1=gt.linear_schedule(0.9, 0.5, 20)), gt.scale_by_lr(rate))
    tx = gt.reset_every(inner, 5)
    _, states = run(tx, SEQUENCE, np.float32)
    for t, state in enumerate(states):
        seen = gt.metrics(state, tx)
        np.testing.assert_allclose(seen["learning_rate"], 1 - t / 20, rtol=1e-6)
        np.testing.assert_allclose(seen["b1"], 0.9 - 0.4 * t / 20, rtol=1e-6)
        assert int(state.inner_state[0].inner_state.count) == t % 5 + 1  # the age of the moments


def test_restart_moves_the_resets_with_the_schedules():
    tx = gt.reset_every(gt.trace(1 - 1e-7), 4)
    g = {n: jnp.ones(shape) for n, shape in SHAPES.items()}
    state = gt.restart(tx.init(PARAMS), at=2)
    sums = []
    for _ in range(5):
        u, state = tx.update(g, state, PARAMS)
        sums.append(round(float(u["s"])))
    assert sums == [1, 2, 1, 2, 3]


def test_what_is_remembered_of_the_parameters_is_of_those_of_that_step():
    tx = gt.reset_every(gt.keep_norm(), 2)
    state = tx.init({"w": jnp.asarray([3.0, 4.0])})
    p = {"w": jnp.asarray([6.0, 8.0])}
    for expected in (5.0, 5.0, 10.0):
        u, state = tx.update({"w": jnp.zeros(2)}, state, p)
        np.testing.assert_allclose(jnp.linalg.norm(p["w"] + u["w"]), expected, rtol=1e-6)


def test_extra_arguments_reach_the_inner_one():
    inner = gt.polyak_sgd(100.0)
    tx = gt.reset_every(inner, 2)
    state = tx.init(PARAMS)
    for value in (1.0, 2.0, 3.0):
        u, state = tx.update(PARAMS, state, PARAMS, value=value)
        expected, _ = inner.update(PARAMS, inner.init(PARAMS), PARAMS, value=value)
        chex.assert_trees_all_equal(u, expected)
    with pytest.raises(ValueError, match="value"):
        tx.update(PARAMS, state, PARAMS)


def test_in_scan_and_without_jit():
    tx = gt.reset_every(gt.scale_by_adam(), 3)
    found, _ = run(tx, SEQUENCE, np.float32)
    stacked = jax.tree.map(lambda *gs: jnp.asarray(np.stack(gs), jnp.float32), *SEQUENCE)
    _, scanned = jax.lax.scan(lambda state, g: tx.update(g, state, PARAMS)[::-1], tx.init(PARAMS), stacked)
    assert_equal([jax.tree.map(lambda x, t=t: x[t], scanned) for t in range(20)], found, rtol=1e-5)
    state = tx.init(PARAMS)
    for t in range(5):
        u, state = tx.update(jax.tree.map(lambda x, t=t: x[t], stacked), state, PARAMS)
        assert_equal([u], [found[t]], rtol=1e-5)


def test_errors():
    with pytest.raises(TypeError, match=r"reset_every: inner must be a transformation, got the factory trace"):
        gt.reset_every(gt.trace, 3)
    with pytest.raises(ValueError, match="reset_every: steps must be a whole number >= 1, got 0"):
        gt.reset_every(gt.trace(0.9), 0)
    tx = gt.reset_every(gt.trace(0.9), 3)
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match="reset_every: update needs the parameters"):
        tx.update(PARAMS, state)
    with pytest.raises(TypeError, match="reset_every: state must be the ResetEveryState"):
        tx.update(PARAMS, PARAMS, state)
