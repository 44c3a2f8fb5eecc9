# SPDX-License-Identifier: Apache-2.0
"""Minimizing a function is one call: compiled once, with auxiliary values and bounds, every evaluation counted."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")
X = jnp.asarray([-1.2, 1.0])


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def with_aux(x):
    return rosenbrock(x), {"radius": jnp.linalg.norm(x)}


# Optax: a search takes no function with auxiliary values, knows no bounds, and has no loop.


def test_optax_has_no_loop_and_no_aux():
    assert not hasattr(optax, "minimize")
    tx = optax.lbfgs()
    (value, _), grad = jax.value_and_grad(with_aux, has_aux=True)(X)
    with pytest.raises((TypeError, ValueError)):
        tx.update(grad, tx.init(X), X, value=value, grad=grad, value_fn=with_aux)


def test_optax_projected_by_hand_reads_stale_values():
    """Projecting what L-BFGS returns, as its users do: the value and gradient kept are not those of the parameters."""
    lower = jnp.asarray([-2.0, 1.5])
    tx, x = optax.lbfgs(), jnp.maximum(X, lower)
    value_and_grad = jax.jit(optax.value_and_grad_from_state(rosenbrock))
    update = jax.jit(lambda g, s, x, v: tx.update(g, s, x, value=v, grad=g, value_fn=rosenbrock))
    state = tx.init(x)
    stale = []
    for _ in range(10):
        value, grad = value_and_grad(x, state=state)
        stale.append(abs(float(value) - float(rosenbrock(x))))
        updates, state = update(grad, state, x, value)
        x = jnp.maximum(optax.apply_updates(x, updates), lower)
    assert max(stale) > 0.01


# gradtx.


def test_aux_is_that_of_the_result():
    done = gt.minimize(with_aux, X, has_aux=True)
    assert done.converged
    np.testing.assert_allclose(done.aux["radius"], np.linalg.norm(done.params), rtol=1e-6)


def test_bounds():
    done = gt.minimize(rosenbrock, X, bounds=(jnp.asarray([-2.0, 1.5]), None), tol=1e-3)
    assert done.converged and done.params[1] == 1.5
    x = done.params
    gradient = jax.grad(rosenbrock)(x)
    assert abs(gradient[0]) <= 1e-3 and gradient[1] > 0
    assert done.evaluations < 60


def test_nothing_is_compiled_twice():
    traces = []

    def f(x, data):
        traces.append(1)
        return rosenbrock(x - data)

    def solve(x, data, rate=None):
        tx = gt.lbfgs() if rate is None else gt.adam(rate)
        return gt.minimize(f, x, tx, args=(data,), tol=1e-3, max_steps=500)

    solve(X, 1.0)
    once = len(traces)
    for i in range(3):
        assert solve(X + i, 0.5 * i).steps > 0
    assert len(traces) == once
    solve(X, 1.0, rate=0.1)
    with_adam = len(traces)
    solve(X, 1.0, rate=0.2)  # a new learning rate
    assert len(traces) == with_adam > once


def test_a_compiled_run_is_fast():
    start = jnp.asarray([-1.2, 1.0] * 5)
    jax.block_until_ready(gt.minimize(rosenbrock, start))
    begin = time.perf_counter()
    jax.block_until_ready(gt.minimize(rosenbrock, start))
    assert time.perf_counter() - begin < 0.5  # a loop in Python with as many updates takes as long for compiling alone


def test_every_evaluation_is_counted():
    calls = []

    def f(x):
        jax.debug.callback(lambda: calls.append(1))
        return rosenbrock(x)

    done = gt.minimize(f, X)
    jax.effects_barrier()
    assert done.converged and done.evaluations == len(calls) <= 50


def test_the_search_is_a_stage_too():
    """In a loop of one's own: one function makes value and gradient, and asks for neither twice."""
    tx, x = gt.chain(gt.clip_by_global_norm(10.0), gt.lbfgs()), X
    assert gt.needs(tx) == {"value", "grad", "value_fn"}
    value_and_grad = gt.value_and_grad_from_state(rosenbrock)

    @jax.jit
    def step(x, state):
        value, grad = value_and_grad(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=rosenbrock)
        return gt.apply_updates(x, updates), state

    state = tx.init(x)
    for _ in range(50):
        x, state = step(x, state)
    np.testing.assert_allclose(x, 1, atol=1e-3)
