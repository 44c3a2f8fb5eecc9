# SPDX-License-Identifier: Apache-2.0
"""Where optax 0.2.8 differs in masks, groups, frozen parameters and injected hyperparameters, and what gradtx does.

What it does to low-precision hyperparameters and to other containers is in tests/needs, rows 4 and 19.
"""

import enum

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")
PARAMS = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}


def update(tx, params=PARAMS, **extra):
    return tx.update(params, tx.init(params), params, **extra)[0]


def matrices(tree):
    return jax.tree.map(lambda p: p.ndim > 1, tree)


def test_selective_transform_with_a_function():
    theirs = update(optax.selective_transform(optax.sgd(1.0), freeze_mask=matrices))
    assert not np.any(theirs["w"]) and not np.any(theirs["b"])
    ours = update(gt.selective_transform(gt.sgd(1.0), freeze_mask=matrices))
    assert not np.any(ours["w"]) and np.all(ours["b"] == -1)


class Group(enum.Enum):
    FAST = 1
    SLOW = 2


@pytest.mark.parametrize("names", [(Group.FAST, Group.SLOW), (1, "1"), (("a", 1), "b")])
def test_labels_that_have_no_order(names):
    fast, slow = names

    def jitted(lib):
        tx = lib.partition({fast: lib.sgd(1.0), slow: lib.sgd(2.0)}, {"w": fast, "b": slow})
        return jax.jit(tx.update)(PARAMS, tx.init(PARAMS))[0]

    with pytest.raises((ValueError, TypeError), match="sorting pytree dictionary keys|not supported between"):
        jitted(optax)
    assert jitted(gt)["b"][0] == -2


def test_names_of_hyperparameters_that_are_not_there():
    tx, ours = optax.inject_hyperparams(optax.sgd)(1.0), gt.inject_hyperparams(gt.sgd)(1.0)
    state = tx.init(PARAMS)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        tx.update(PARAMS, state._replace(hyperparams={"lr": 1.0}))
    with pytest.raises(ValueError, match="must have the keys"):
        ours.update(PARAMS, ours.init(PARAMS)._replace(hyperparams={"lr": 1.0}))


def with_options(rate, **options):
    return gt.adam(rate, **options)


def test_hyperparameters_in_keyword_arguments():
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        optax.inject_hyperparams(with_options)(0.1, b1=0.8).init(PARAMS)
    assert set(gt.inject_hyperparams(with_options)(0.1, b1=0.8).init(PARAMS).hyperparams) == {"rate", "b1"}


@pytest.mark.parametrize("rate", [1, 0.5])
def test_types_of_the_state_when_a_rate_is_assigned(rate):
    def types(lib):
        tx = lib.inject_hyperparams(lib.sgd)(rate)
        state = tx.init(PARAMS)
        before = state.hyperparams["learning_rate"].aval
        state.hyperparams["learning_rate"] = 0.25
        _, state = tx.update(PARAMS, state)
        return before, state.hyperparams["learning_rate"].aval

    before, after = types(gt)
    assert before == after
    before, after = types(optax)
    assert before == after or rate == 1
