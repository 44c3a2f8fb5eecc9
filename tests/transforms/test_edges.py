# SPDX-License-Identifier: Apache-2.0
"""Stages and wrappers at the edge of their ranges, where they still have a meaning: that of Optax, if it has one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.compat import optax as compat

PARAMS = {"w": jnp.arange(1.0, 7.0).reshape(2, 3), "b": jnp.ones(3)}


def run(lib: Any, tx: Any, **extra: Any) -> Any:
    params, state = PARAMS, tx.init(PARAMS)
    for i in range(3):
        updates, state = tx.update(jax.tree.map(lambda p, i=i: (i - 0.5) * p, PARAMS), state, params, **extra)
        params = lib.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    "make",
    [
        lambda lib: lib.trace(1.0),
        lambda lib: lib.trace(-0.5),
        lambda lib: lib.sgd(0.1, momentum=1.0),
        lambda lib: lib.sgd(0.1, momentum=-0.5, nesterov=True),
        lambda lib: lib.rmsprop(0.1, momentum=1.0),
        lambda lib: lib.lars(0.1, momentum=1.0),
        lambda lib: lib.clip(0.0),
        lambda lib: lib.clip_by_global_norm(0.0),
        lambda lib: lib.clip_by_block_rms(0.0),
        lambda lib: lib.adaptive_grad_clip(0.0),
        lambda lib: lib.adafactor(0.1, decay_rate=1.5, min_dim_size_to_factor=2),
        lambda lib: lib.partition({"a": lib.sgd(0.1), "b": lib.adam(1.0)}, {"w": "a", "b": "a"}),
        lambda lib: lib.partition({"a": lib.sgd(0.1), "b": lib.adam(1.0)}, "a"),
        lambda lib: lib.masked(lib.sgd(0.1), jnp.array(True)),
        lambda lib: lib.masked(lib.sgd(0.1), {"w": np.array(False), "b": jnp.array(True)}),
        lambda lib: lib.adamw(0.1, weight_decay=0.1, mask=jnp.array(False)),
        lambda lib: lib.adamw(0.1, weight_decay=0.1, mask=lambda p: jax.tree.map(lambda x: jnp.array(x.ndim > 1), p)),
    ],
)
def test_the_edges_are_optaxs(make: Any):
    with jax.disable_jit():
        ours, theirs = run(compat, make(compat)), run(optax, make(optax))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)


def test_clipping_to_zero_of_zero():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for tx in (
        gradtx.clip(0.0),
        gradtx.clip_by_norm(0.0),
        gradtx.clip_by_global_norm(0.0),
        gradtx.clip_by_block_rms(0.0),
    ):
        for gradient in (zeros, PARAMS):
            updates, _ = tx.update(gradient, tx.init(PARAMS))
            jax.tree.map(np.testing.assert_array_equal, updates, zeros)


def test_slow_parameters_that_stay():
    tx = gradtx.lookahead(gradtx.sgd(0.1), 2, 0.0)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(2):
        updates, state = tx.update(PARAMS, state, params)
        params = gradtx.apply_updates(params, updates)
    jax.tree.map(np.testing.assert_allclose, (params, gradtx.eval_params(state, params)), (PARAMS, PARAMS))


@pytest.mark.slow
def test_a_search_that_begins_shorter():
    def loss(p):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(p))

    def searched(lib):
        tx = lib.chain(lib.sgd(1.0), lib.scale_by_backtracking_linesearch(10, increase_factor=0.9))
        params, state = PARAMS, tx.init(PARAMS)
        for _ in range(3):
            value, grad = jax.value_and_grad(loss)(params)
            updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
            params = lib.apply_updates(params, updates)
        return params

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), searched(gradtx), searched(optax))


@pytest.mark.parametrize("factor", [1.0, 0.5, jnp.asarray(0.5)], ids=["1", "0.5", "traced"])
def test_a_search_whose_trials_do_not_grow(factor):
    """The first trial is taken if it decreases the value, however little; a factor above 1 would look further."""

    def loss(p):
        return jnp.sum(p**2)

    def moved(tx, rate):
        p = jnp.asarray([3.0])
        value, grad = jax.value_and_grad(loss)(p)
        return jax.jit(lambda tx: tx.update(-rate * grad, tx.init(p), p, value=value, grad=grad, value_fn=loss)[0])(tx)

    tx = gradtx.scale_by_zoom_linesearch(20, increase_factor=factor)
    grows = gradtx.scale_by_zoom_linesearch(20, increase_factor=2.0)
    np.testing.assert_allclose(moved(tx, 1e-3), [-6e-3], rtol=1e-5)
    assert moved(grows, 1e-3) < -0.1
    np.testing.assert_allclose(moved(tx, 0.5), [-3.0], rtol=1e-5)
    assert -6 < moved(tx, 10.0) < 0  # a trial that is too long is bracketed, whatever the factor
    # A second search starts from the last step, in Optax too, whose steps shrink by the factor at each trial.
    theirs = optax.scale_by_zoom_linesearch(20, increase_factor=float(factor))
    p = jnp.asarray([3.0])
    value, grad = jax.value_and_grad(loss)(p)
    updates, _ = theirs.update(-1e-3 * grad, theirs.init(p), p, value=value, grad=grad, value_fn=loss)
    assert -6.1e-3 < updates < 0


def test_a_loss_scale_that_stays():
    tx = gradtx.dynamic_loss_scale(gradtx.sgd(1.0), 8.0, growth_interval=1, factor=1.0)
    state = tx.init(PARAMS)
    for gradient in (PARAMS, jax.tree.map(lambda p: p * jnp.inf, PARAMS), PARAMS):
        _, state = tx.update(gradient, state, PARAMS)
        assert gradtx.loss_scale(state) == 8.0


@pytest.mark.slow
def test_no_warm_up_of_schedule_free():
    for factory in (gradtx.schedule_free_sgd, gradtx.schedule_free_adamw, gradtx.schedule_free_plus):
        ours, plain = (run(gradtx, factory(0.1, warmup_steps=n), value=1.0) for n in (0, None))
        jax.tree.map(np.testing.assert_array_equal, ours, plain)


def test_parameters_that_are_none_stay_none():
    params, updates = {"w": None, "b": jnp.ones(2)}, {"w": jnp.ones(2), "b": jnp.ones(2)}
    ours, theirs = gradtx.apply_updates(params, updates), optax.apply_updates(params, updates)
    assert ours["w"] is theirs["w"] is None and (ours["b"] == theirs["b"]).all()
