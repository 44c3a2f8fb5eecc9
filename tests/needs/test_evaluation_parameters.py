# SPDX-License-Identifier: Apache-2.0
"""Which parameters to validate, save and deploy: one function, for every method, through everything around it."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt
from gradtx.compat.optax import contrib

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


# Parameters that no optimizer moves: a counter, and a running mean that the model moves by itself.

KEPT = {"w": jnp.asarray([1.0, 2.0]), "count": jnp.int32(0), "mean": jnp.float32(0.0)}
MORE_METHODS = {
    **METHODS,
    "unbiased average": lambda: gt.chain(gt.sgd(0.1), gt.params_ema(0.5, debias=True)),
    "Schedule-Free Adam": lambda: gt.schedule_free_adamw(0.1),
    "ScheduleFree+": lambda: gt.schedule_free_plus(0.1),
    "GPA-AdamW": lambda: gt.gpa_adamw(0.1),
    "best parameters": lambda: gt.chain(gt.sgd(0.1), gt.early_stopping(keep_best=True)),
    "in eight bits": lambda: gt.stored(gt.params_ema(0.5), {"ema": gt.precision.int8()}, min_size=0),
}


def run(tx, steps, params, state=None, of_mean=None, moved=True):
    """Some steps in which the model moves its counter before the update, and its mean before and after it."""
    state = tx.init(params) if state is None else state
    for i in range(steps):
        if moved:
            params = params | {"count": params["count"] + 1, "mean": params["mean"] + 0.25}
        gradients = {"w": jnp.sin(params["w"]), "count": None, "mean": of_mean}
        updates, state = tx.update(gradients, state, params, value=1.0 - 0.1 * i)
        params = gt.apply_updates(params, updates)
        if moved:
            params = params | {"mean": params["mean"] + 0.25}
    return state, params


@pytest.mark.parametrize(
    "method", [pytest.param(n, marks=pytest.mark.slow) if n == "in eight bits" else n for n in MORE_METHODS]
)
def test_what_never_had_a_gradient_is_the_parameters_own(method):
    state, params = run(MORE_METHODS[method](), 3, KEPT)
    found = gt.eval_params(state, params)
    assert (int(found["count"]), float(found["mean"])) == (3, 1.5)
    assert np.all(np.isfinite(found["w"])) and not np.allclose(found["w"], params["w"])


@pytest.mark.parametrize("method", ["moving average", "latest weights", "lookahead", "schedule-free"])
def test_an_average_begins_at_the_first_gradient(method):
    """As if the parameter had had its value of then from the start."""
    tx, of_mean = METHODS[method](), jnp.float32(0.5)
    state, params = run(tx, 3, KEPT)
    found = gt.eval_params(*run(tx, 1, params, state, of_mean, moved=False))
    same, _ = run(tx, 3, KEPT | {"mean": params["mean"]}, None, jnp.float32(0.0), moved=False)
    want = gt.eval_params(*run(tx, 1, params, same, of_mean, moved=False))
    np.testing.assert_allclose(found["mean"], want["mean"], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_an_average_outlasts_a_pause(method):
    tx = METHODS[method]()
    state, params = run(tx, 3, KEPT, None, jnp.float32(0.5), moved=False)
    before = gt.eval_params(state, params)["mean"]
    found = gt.eval_params(*run(tx, 1, params, state, moved=False))["mean"]
    assert not np.allclose(found, params["mean"])
    np.testing.assert_allclose(found, before, rtol=0.1)


def test_swapped_arguments_are_an_error():
    state, params = train(gt.adamw(0.1), 1)
    with pytest.raises(TypeError, match=r"params holds a state.*the order is eval_params\(state, params\)"):
        gt.eval_params(params, state)
    assert gt.eval_params((), params) is params
    with pytest.raises(TypeError, match="schedule_free_eval_params: state must be one of schedule_free"):
        contrib.schedule_free_eval_params(state, params)
    inside = gt.chain(gt.clip(1.0), gt.schedule_free_sgd(0.1)).init(PARAMS)
    assert jax.tree.structure(contrib.schedule_free_eval_params(inside, PARAMS)) == jax.tree.structure(PARAMS)


def test_what_holds_the_state_is_an_error():
    holder = types.SimpleNamespace(opt_state=METHODS["lookahead"]().init(PARAMS))
    with pytest.raises(TypeError, match="opt_state of the SimpleNamespace"):
        gt.eval_params(holder, PARAMS)


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
