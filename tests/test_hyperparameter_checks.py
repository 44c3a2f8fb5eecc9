# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters that are known only while a compiled step runs, reported by name where somebody asks."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import checkify

import gradtx as gt
from gradtx.testing import check_hyperparameters

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
GRADIENTS = {"w": jnp.full((2, 3), 0.5), "b": jnp.full(3, -0.5)}


def step(tx, state):
    check_hyperparameters(tx, state)
    return tx.update(GRADIENTS, state, PARAMS)


def said(function, *arguments):
    """The error of a compiled call, None without one."""
    checked = checkify.checkify(function, errors=checkify.user_checks)
    message = jax.jit(checked)(*arguments)[0].get()
    return None if message is None else message.removesuffix(" (`check` failed)")


def with_decay(b1):
    return gt.adam(0.1, b1=b1)


def stepped(make, b1):
    """The error of a step whose decay is traced."""
    return said(lambda b1: step(make(b1), make(0.5).init(PARAMS)), b1)


@pytest.mark.parametrize("b1", [1.5, -0.5, 1.0, math.nan, math.inf])
def test_out_of_range(b1):
    assert stepped(with_decay, b1) == f"adam: b1 must be in [0, 1), was {b1}"


@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_in_range(b1):
    assert stepped(with_decay, b1) is None


def test_a_transformation_as_an_argument_of_jit():
    """Its leaves reach no factory, so that nothing has checked them."""
    tx = jax.tree.map(lambda x: 1.5 if x == 0.9 else x, gt.adam(0.1))
    state = gt.adam(0.1).init(PARAMS)
    assert said(step, tx, state) == "adam: b1 must be in [0, 1), was 1.5"
    assert said(step, gt.adam(0.1), state) is None


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (lambda b1: gt.chain(gt.clip(1.0), gt.guard(with_decay(b1))), ", at 1.inner_state"),
        (lambda b1: gt.masked(with_decay(b1), {"w": True, "b": False}), ", at inner_state"),
        (lambda b1: gt.partition({"a": with_decay(b1)}, {"w": "a", "b": "a"}), ", at inner_states.a.inner_state"),
        (lambda b1: gt.with_roles((("**", gt.Role()),), with_decay(b1)), ""),
        (lambda b1: gt.groups([("w", {"learning_rate": 0.2})], with_decay(b1)), ""),
        (lambda b1: gt.MultiSteps(with_decay(b1), 2), ", at inner_opt_state"),
    ],
)
def test_inside_of_wrappers(make, at):
    assert stepped(make, 1.5) == f"adam: b1 must be in [0, 1), was 1.5{at}"


def test_schedules_at_the_step_of_the_state():
    tx = gt.chain(gt.clip(1.0), gt.adam(lambda count: 0.1 - 0.05 * count.astype(float)))
    state = tx.init(PARAMS)
    for rate in (0.1, 0.05, 0.0, -0.05):
        message = said(lambda state: step(tx, state), state)
        if rate >= 0:
            assert message is None
        else:
            assert message.startswith("adam: learning_rate must be a finite number >= 0, was -0.05")
        state = tx.update(GRADIENTS, state, PARAMS)[1]


def test_numbers_of_schedules():
    def asked(steps):
        check_hyperparameters(gt.adam(gt.schedules.warmup(10).then(gt.cosine_decay_schedule(0.1, steps))))

    assert said(asked, -1.0) == "cosine_decay_schedule: decay_steps must be a number > 0, was -1.0"
    assert said(asked, 10.0) is None


def test_values_in_the_state():
    tx = gt.inject_hyperparams(gt.adam)(0.1)
    state = tx.init(PARAMS)
    assert said(lambda state: step(tx, state), state) is None
    state.hyperparams["b1"] = jnp.asarray(1.5)
    assert said(lambda state: step(tx, state), state) == "adam: b1 must be in [0, 1), was 1.5, at inner_state"


def test_in_a_scan_under_vmap_and_grad():
    def trained(b1):
        tx = with_decay(b1)

        def body(state, _):
            return step(tx, state)[1], None

        return sum(map(jnp.sum, jax.tree.leaves(jax.lax.scan(body, tx.init(PARAMS), None, length=3)[0][0].mu)))

    assert said(trained, 0.5) is None
    assert said(trained, 1.5) == said(jax.grad(trained), 1.5) == "adam: b1 must be in [0, 1), was 1.5"
    population = jnp.asarray([0.5, 1.5])
    assert "adam: b1 must be in [0, 1), was 1.5" in said(jax.vmap(trained), population)
    assert said(jax.vmap(trained), population / 2) is None


def test_arrays_that_are_known():
    """Where there is no trace, there is no need of checkify."""
    with pytest.raises(checkify.JaxRuntimeError, match=r"adam: learning_rate must be a finite number >= 0, was -0.1"):
        check_hyperparameters(gt.adam(lambda count: -0.1), gt.adam(lambda count: 0.1).init(PARAMS))


def test_who_does_not_ask_pays_nothing():
    def plain(b1, state):
        return with_decay(b1).update(GRADIENTS, state, PARAMS)

    state = with_decay(0.5).init(PARAMS)
    before = str(jax.make_jaxpr(plain)(0.5, state))
    assert stepped(with_decay, 1.5) is not None
    assert str(jax.make_jaxpr(plain)(0.5, state)) == before and "check" not in before
    # Numbers were checked at the call, and add nothing either.
    tx = gt.adam(0.1)
    not_asking = jax.make_jaxpr(lambda state: tx.update(GRADIENTS, state, PARAMS))(state)
    assert str(jax.make_jaxpr(partial(step, tx))(state)) == str(not_asking)


def test_transformations_of_others():
    import optax

    assert said(lambda rate: check_hyperparameters(optax.sgd(rate)), -1.0) is None
