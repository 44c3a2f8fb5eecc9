# SPDX-License-Identifier: Apache-2.0
"""Which parameters to validate, save and deploy: one function, for every method, through everything around it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt

PARAMS = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}

METHODS = {
    "moving average": lambda: gt.chain(gt.sgd(0.1), gt.params_ema(0.9)),
    "latest weights": lambda: gt.chain(gt.sgd(0.1), gt.lawa(3)),
    "schedule-free": lambda: gt.schedule_free_sgd(0.1),
    "primal averaging": lambda: gt.primal_averaging(gt.sgd(0.1)),
    "lookahead": lambda: gt.lookahead(gt.sgd(0.1), 5, 0.5),
    "averaged descent": lambda: gt.asgd(0.1, t0=0.0),
}

# What may stand around a method without a part in its numbers.
AROUND = {
    "chain": lambda tx: gt.chain(gt.identity(), gt.chain(tx)),
    "named_chain": lambda tx: gt.named_chain(("clip", gt.clip(1e6)), ("rest", tx)),
    "masked": lambda tx: gt.masked(tx, True),
    "sam": lambda tx: gt.sam(tx, gt.sgd(0.0), 1),
    "repack_state": lambda tx: gt.repack_state(tx, _boxed, _unboxed),
    "mask by leaf": lambda tx: gt.masked(tx, {"a": True, "b": True}),
}


def _boxed(state):
    return {"box": [state]}


def _unboxed(state):
    return state["box"][0]


def train(tx, steps=4):
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(steps):
        updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
        params = gt.apply_updates(params, updates)
    return state, params


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("around", AROUND)
def test_found_through(around, method):
    state, params = train(METHODS[method]())
    wanted = gt.eval_params(state, params)
    assert all(not np.allclose(wanted[n], params[n]) for n in params)
    found = gt.eval_params(*train(AROUND[around](METHODS[method]())))
    for n in params:
        np.testing.assert_allclose(found[n], wanted[n], rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_of_some_parameters(method):
    tx = gt.masked(METHODS[method](), {"a": True, "b": False})
    state, params = train(tx)
    found = gt.eval_params(state, params)
    np.testing.assert_array_equal(found["b"], params["b"])
    assert not np.allclose(found["a"], params["a"])


@pytest.mark.parametrize("method", METHODS)
def test_inside_compiled_functions(method):
    state, params = train(METHODS[method]())
    for a, b in zip(
        *(jax.tree.leaves(f(state, params)) for f in (jax.jit(gt.eval_params), gt.eval_params)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_of_a_method_that_answers_with_its_parameters():
    state, params = train(gt.adamw(0.1))
    assert gt.eval_params(state, params) is params


@pytest.mark.usefixtures("standard_promotion")
def test_optax_finds_them_at_the_top_only():
    alone = optax.contrib.schedule_free_sgd(0.1)
    optax.contrib.schedule_free_eval_params(alone.init(PARAMS), PARAMS)
    for tx in (optax.chain(optax.clip(1.0), alone), optax.masked(alone, True)):
        with pytest.raises(AttributeError):
            optax.contrib.schedule_free_eval_params(tx.init(PARAMS), PARAMS)
    # Its moving average is of the updates, and knows nothing of the parameters.
    ema = optax.ema(0.5, debias=False)
    _, state = ema.update(jnp.ones(2), ema.init(jnp.full(2, 7.0)))
    np.testing.assert_allclose(state.ema, 0.5)
