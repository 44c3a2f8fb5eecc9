# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

PARAMS = {"w": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(0.5)}
BOTH = pytest.mark.parametrize("name", ["conditionally_transform", "conditionally_mask"])


def grads(i):
    return jax.tree.map(lambda p: jnp.cos(p + i), PARAMS)


def every_third(step):
    return step % 3 == 2


def numbers_of(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


@BOTH
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.usefixtures("standard_promotion")
def test_optax_s_numbers_and_states(name, jit):
    ours = getattr(gt, name)(optax.adamw(0.1), every_third)
    theirs = getattr(optax, name)(optax.adamw(0.1), every_third)
    step, their_step = (jax.jit(tx.update) if jit else tx.update for tx in (ours, theirs))
    state, their_state = ours.init(PARAMS), theirs.init(PARAMS)
    assert type(state).__name__ == type(their_state).__name__ and state._fields == their_state._fields
    for i in range(9):
        updates, state = step(grads(i), state, PARAMS)
        their_updates, their_state = their_step(grads(i), their_state, PARAMS)
        have, want = numbers_of((updates, state)), numbers_of((their_updates, their_state))
        assert [(x.shape, x.dtype) for x in have] == [(x.shape, x.dtype) for x in want]
        for a, b in zip(have, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


@BOTH
def test_inner_runs_only_when_due(name):
    runs = []

    def update(updates, state, params=None):
        jax.debug.callback(lambda: runs.append(None))
        return updates, state

    tx = getattr(gt, name)(gt.GradientTransformation(lambda params: (), update), every_third)
    step, state = jax.jit(tx.update), tx.init(PARAMS)
    for i in range(7):
        _, state = step(grads(i), state, PARAMS)
    jax.effects_barrier()
    assert len(runs) == 2 and int(state.step) == 7


@BOTH
def test_a_step_that_is_not_due_lets_no_nan_into_the_state(name):
    tx = getattr(gt, name)(gt.adam(0.1), every_third)
    bad = jax.tree.map(lambda p: p * jnp.nan, PARAMS)
    updates, state = tx.update(bad, tx.init(PARAMS), PARAMS)
    assert all(np.isfinite(x).all() for x in numbers_of(state))
    assert np.isnan(updates["w"]).all() == (name == "conditionally_transform")


@BOTH
def test_extra_arguments(name):
    def due(step, *, value, **extra):
        return value > 1.5

    def update(updates, state, params=None, *, value):
        return jax.tree.map(lambda g: g * value, updates), state

    inner = gt.GradientTransformation(lambda params: (), update)
    tx = getattr(gt, name)(inner, due, forward_extra_args=True)
    elsewhere = 1.0 if name == "conditionally_transform" else 0.0
    for value, factor in ((2.0, 2.0), (1.0, elsewhere)):
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=value, other=None)
        np.testing.assert_allclose(updates["w"], factor * PARAMS["w"])


@BOTH
@pytest.mark.parametrize("inner", [gt.adam(0.1), gt.identity()])
def test_mixed_dtypes_have_one_type_of_updates(name, inner):
    tx = getattr(gt, name)(inner, every_third)
    for p_dtype in (jnp.float32, jnp.bfloat16):
        for g_dtype in (jnp.float32, jnp.bfloat16):
            params, g = jax.tree.map(p_dtype, PARAMS), jax.tree.map(g_dtype, PARAMS)
            state, seen = tx.init(params), set()
            types = jax.tree.map(jax.typeof, state)
            for _ in range(3):
                updates, state = tx.update(g, state, params)
                seen.add(updates["w"].dtype)
                assert jax.tree.map(jax.typeof, state) == types
            assert len(seen) == 1


def test_updates_pass_exactly():
    """Also where the inner transformation's are less precise."""
    coarse = gt.stateless(lambda updates, params: jax.tree.map(jnp.bfloat16, updates))
    tx = gt.conditionally_transform(coarse, every_third)
    g = grads(0)
    updates, _ = tx.update(g, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["w"], g["w"])


@BOTH
def test_the_step_is_a_step_count_and_evaluation_goes_through(name):
    tx = getattr(gt, name)(gt.chain(gt.sgd(gt.linear_schedule(1.0, 0.0, 10)), gt.params_ema(0.9)), every_third)
    state = tx.init(PARAMS)
    for i in range(3):
        _, state = tx.update(grads(i), state, PARAMS)
    assert int(gt.restart(state, at=7).step) == 7
    ema = gt.eval_params(state.inner_state, PARAMS)
    np.testing.assert_array_equal(gt.eval_params(state, PARAMS)["w"], ema["w"])
    # One update of the inner transformation, whose own count is what its schedule reads.
    rates = [float(v) for n, v in gt.metrics(state, tx).items() if n.endswith("learning_rate")]
    np.testing.assert_allclose(rates, [1.0])


@BOTH
def test_bad_input(name):
    make = getattr(gt, name)
    with pytest.raises(TypeError, match=f"{name}: should_transform_fn must be a function of the step, got True"):
        make(gt.sgd(0.1), True)
    with pytest.raises(TypeError, match=f"{name}: inner must be a transformation, got the factory sgd"):
        make(gt.sgd, every_third)
    tx = make(gt.sgd(0.1), lambda step: jnp.ones(2, bool))
    with pytest.raises(ValueError, match=rf"{name}: should_transform_fn must return True or False, got shape \(2,\)"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(TypeError, match=f"{name}: state must be the Conditionally"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))


def test_what_can_not_pass_unchanged_is_an_error():
    mean = gt.stateless(lambda updates, params: {"w": updates["w"]})
    tx = gt.conditionally_transform(mean, every_third)
    with pytest.raises(ValueError, match="conditionally_transform: the inner transformation returned updates of anoth"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
