# SPDX-License-Identifier: Apache-2.0
"""Gradient accumulation: what an update is made of, and when. Formulas: tests/formulas; under JAX: the next file."""

import functools
import pickle
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.asarray(0.5)}


def gradients(count, seed=0, dtype: Any = np.float32):
    rng = np.random.default_rng(seed)
    return [{n: jnp.asarray(rng.normal(size=p.shape), dtype) for n, p in PARAMS.items()} for _ in range(count)]


def mean(trees):
    return jax.tree.map(lambda *xs: jnp.asarray(np.mean(np.stack(xs).astype(np.float64), axis=0), xs[0].dtype), *trees)


def with_bad(tree, value=jnp.inf):
    return {**tree, "w": tree["w"].at[1, 2].set(value)}


def run(tx, trees, params=PARAMS, state=None, **extra):
    """Updates and states of each call; the parameters move."""
    state, done = tx.init(params) if state is None else state, []
    for i, g in enumerate(trees):
        updates, state = tx.update(g, state, params, **{n: x[i] for n, x in extra.items()})
        params = gt.apply_updates(params, updates)
        done.append((updates, state))
    return done


def assert_close(have, want, rtol=1e-6):
    chex.assert_trees_all_close(have, want, rtol=rtol, atol=rtol)


def assert_zero(updates):
    assert all(not np.any(np.asarray(u)) for u in jax.tree.leaves(updates))


def recorder():
    """A transformation that returns what it gets and keeps it, with the value, in its state."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params), jnp.zeros([])

    def update(updates, state, params=None, *, value=0.0, **extra):
        return updates, (updates, jnp.asarray(value, jnp.float32))

    return gt.GradientTransformationExtraArgs(init, update)


# What an update is made of.


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_a_round_is_one_step_on_the_mean_gradient(k):
    inner = gt.adamw(0.1)
    done = run(gt.MultiSteps(inner, k), grads := gradients(3 * k))
    params, state = PARAMS, inner.init(PARAMS)
    for i in range(0, 3 * k, k):
        updates, state = inner.update(mean(grads[i : i + k]), state, params)
        for between, _ in done[i : i + k - 1]:
            assert_zero(between)
        assert_close(done[i + k - 1][0], updates)
        assert_close(done[i + k - 1][1].inner_opt_state, state)
        params = gt.apply_updates(params, updates)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("use_grad_mean", [True, False])
@pytest.mark.parametrize("k", [1, 3, lambda step: jnp.where(step < 2, 1, 4)])
def test_finite_gradients_give_optax_s_numbers(k, use_grad_mean):
    ours, theirs = (lib.MultiSteps(lib.adam(0.1), k, use_grad_mean) for lib in (gt, optax))
    params, state, their_state = PARAMS, ours.init(PARAMS), theirs.init(PARAMS)
    update, their_update = jax.jit(ours.update), jax.jit(theirs.update)
    for g in gradients(14):
        updates, state = update(g, state, params)
        their_updates, their_state = their_update(g, their_state, params)
        assert_close(updates, their_updates)
        assert [u.dtype for u in jax.tree.leaves(updates)] == [u.dtype for u in jax.tree.leaves(their_updates)]
        assert_close(jax.tree.leaves(state.inner_opt_state), jax.tree.leaves(their_state.inner_opt_state))
        assert state.mini_step == their_state.mini_step and state.gradient_step == their_state.gradient_step
        assert ours.has_updated(state) == theirs.has_updated(their_state)
        params = gt.apply_updates(params, updates)


def test_the_mean_stays_to_be_looked_at_until_the_next_round():
    grads = gradients(3)
    (_, first), (updates, second), (_, third) = run(gt.MultiSteps(gt.identity(), 2), grads)
    assert_close(second.acc_grads, updates)
    assert_close(third.acc_grads, grads[2])
    assert [int(s.skip_state.kept) for s in (first, second, third)] == [1, 2, 1]


def test_low_precision_gradients_are_averaged_and_handed_on_in_float32():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    grads = [jax.tree.map(lambda p, i=i: jnp.full(p.shape, 1 + i / 128, jnp.bfloat16), params) for i in range(8)]
    less_one = gt.stateless_with_tree_map(lambda g, p: g - 1)  # bfloat16 holds the difference, but not the mean
    updates, state = run(gt.MultiSteps(less_one, 8), grads, params)[-1]
    assert updates["w"].dtype == jnp.bfloat16 and state.acc_grads["w"].dtype == jnp.float32
    np.testing.assert_array_equal(updates["w"], np.full(PARAMS["w"].shape, 3.5 / 128, jnp.bfloat16))
    _, state = run(gt.MultiSteps(less_one, 8, accumulator_dtype=jnp.bfloat16), grads, params)[-1]
    assert state.acc_grads["w"].dtype == jnp.bfloat16


def test_complex_gradients():
    grads = [jnp.asarray([1 + 2j, 3j]), jnp.asarray([3 - 2j, 1j])]
    updates, _ = run(gt.MultiSteps(gt.identity(), 2), grads, jnp.asarray([1j, 2j]))[-1]
    np.testing.assert_allclose(updates, [2, 2j])


# What is dropped.


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", range(4))
def test_gradients_that_are_not_finite_are_dropped_and_counted(where, value):
    tx, grads = gt.MultiSteps(gt.adam(0.1), 4), gradients(8)
    bad = [with_bad(g, value) if i == where else g for i, g in enumerate(grads)]
    done = run(tx, bad)
    kept = [g for i, g in enumerate(grads[:4]) if i != where]
    expected = run(gt.adam(0.1), [mean(kept), mean(grads[4:])])
    assert_close([done[3][0], done[7][0]], [u for u, _ in expected])
    assert [int(s.skip_state.skipped) for _, s in done] == [int(i >= where) for i in range(8)]
    assert int(done[where][1].skip_state.report["num_not_finite"]) == 1
    assert [bool(tx.has_updated(s)) for _, s in done] == [i in (3, 7) for i in range(8)]
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(done))


def test_a_round_of_which_nothing_is_left_makes_no_update():
    tx = gt.MultiSteps(gt.adam(0.1), 2)
    grads = gradients(6)
    done = run(tx, [*grads[:2], *map(with_bad, grads[2:4]), *grads[4:]])
    before, after = done[1][1], done[3][1]
    assert_zero(done[3][0])
    chex.assert_trees_all_equal(after.inner_opt_state, before.inner_opt_state)
    assert int(after.gradient_step) == 1 and int(after.mini_step) == 0 and not tx.has_updated(after)
    expected = run(gt.adam(0.1), [mean(grads[:2]), mean(grads[4:])])
    assert_close(done[5][0], expected[1][0])
    assert not tx.has_updated(tx.init(PARAMS))


def test_nothing_is_dropped_when_asked_and_the_next_round_is_clean():
    grads = gradients(4)
    done = run(gt.MultiSteps(gt.sgd(0.1), 2, should_skip_update_fn=None), [with_bad(grads[0]), *grads[1:]])
    assert not np.isfinite(done[1][0]["w"][1, 2])
    assert_close(done[3][0], jax.tree.map(lambda g: -0.1 * g, mean(grads[2:])))


def test_large_gradients_are_dropped_by_their_norm():
    skip = functools.partial(gt.skipping.skip_large_updates, max_squared_norm=100.0)
    grads = gradients(3)
    large = jax.tree.map(lambda g: 100 * g, grads[1])
    updates, state = run(
        gt.MultiSteps(gt.identity(), 3, use_grad_mean=False, should_skip_update_fn=skip), [grads[0], large, grads[2]]
    )[-1]
    assert_close(updates, jax.tree.map(lambda a, b: a + b, grads[0], grads[2]))
    assert int(state.skip_state.skipped) == 1


@pytest.mark.parametrize("value", [1.0, 100.0, np.inf, np.nan])
def test_the_two_functions_agree_with_optax(value):
    tree = {"a": jnp.asarray([value, 2.0]), "b": jnp.asarray(3.0)}
    for name, extra in (("skip_not_finite", ()), ("skip_large_updates", (20.0,))):
        (ours, report), (theirs, their_report) = (
            getattr(library, name)(tree, 0, tree, *extra) for library in (gt.skipping, optax)
        )
        assert ours == theirs
        jax.tree.map(np.testing.assert_allclose, report, their_report)


def test_squares_that_overflow_the_gradient_s_dtype_are_not_too_large():
    tree = {"a": jnp.full(3, 300.0, jnp.float16), "none": None}
    skip, report = gt.skipping.skip_large_updates(tree, 0, tree, 3e5)
    assert not skip and report["norm_squared"] == 270000.0


def test_a_function_of_the_caller_sees_gradients_updates_made_and_parameters():
    def early_or_negative(updates, gradient_step, params):
        return (gradient_step < 1) & (updates["b"] < params["b"]), {"b": updates["b"]}

    tree = jax.tree.map(jnp.ones_like, PARAMS)
    signs = [-1.0, 1.0, -1.0, -1.0]
    done = run(
        gt.MultiSteps(gt.scale(0.0), 2, should_skip_update_fn=early_or_negative),
        [jax.tree.map(lambda g, s=s: s * g, tree) for s in signs],
    )
    assert [int(s.skip_state.skipped) for _, s in done] == [1, 1, 1, 1]
    assert [float(s.skip_state.report["b"]) for _, s in done] == signs


# When updates are made.


@pytest.mark.parametrize(
    "k",
    [
        lambda step: jnp.where(step < 2, 1, jnp.where(step < 3, 2, 4)),
        gt.piecewise_constant_schedule(1.0, {2: 2.0, 3: 2.0}),
        lambda step: jnp.where(step < 2, 0.6, jnp.where(step < 3, 2.4, 3.9)),  # rounded
    ],
)
def test_a_growing_batch(k):
    tx = gt.MultiSteps(gt.sgd(0.1), k)
    done = run(tx, gradients(12))
    assert [i for i, (_, s) in enumerate(done) if tx.has_updated(s)] == [0, 1, 3, 7, 11]
    assert int(done[-1][1].gradient_step) == 5
    assert round(float(gt.metrics(done[-1][1], tx)["every_k_schedule"])) == 4


def test_schedules_inside_count_updates_and_restart_reaches_both():
    rate = gt.linear_schedule(1.0, 0.0, 10)
    tx = gt.MultiSteps(gt.sgd(rate), lambda step: jnp.where(step < 5, 2, 3))
    state = run(tx, gradients(7))[-1][1]
    seen = gt.metrics(state, tx)
    np.testing.assert_allclose(seen.pop("learning_rate"), 0.8)
    assert {n: float(x) for n, x in seen.items()} == {
        "mini_step": 1,
        "gradient_step": 3,
        "skipped": 0,
        "every_k_schedule": 2,
        "step_skipped": 0,
    }
    again = gt.restart(state, at=6)
    assert int(again.gradient_step) == 6 and int(again.mini_step) == 1
    done = run(tx, grads := gradients(2, seed=1), state=again)
    assert [bool(tx.has_updated(s)) for _, s in done] == [False, True]
    assert_close(done[1][0], jax.tree.map(lambda g: -0.4 * g, mean([gradients(7)[6], *grads])), rtol=1e-5)


# Extra arguments.


def test_extra_arguments_are_the_last_call_s_unless_averaged():
    grads, values = gradients(4), [1.0, 2.0, 6.0, 7.0]
    for averaged, expected in (((), 7.0), (("value",), 4.0)):
        state = run(gt.MultiSteps(recorder(), 4, averaged=averaged), grads, value=values)[-1][1]
        assert float(state.inner_opt_state[1]) == expected
    dropped = [grads[0], grads[1], with_bad(grads[2]), grads[3]]
    state = run(gt.MultiSteps(recorder(), 4, averaged=("value",)), dropped, value=values)[-1][1]
    np.testing.assert_allclose(state.inner_opt_state[1], 10 / 3)


def test_an_averaged_argument_that_is_missing_or_no_scalar_is_an_error():
    tx = gt.MultiSteps(recorder(), 4, averaged=("value",))
    with pytest.raises(ValueError, match=r"MultiSteps: update needs value: call update\(updates, state, params, value"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"update needs value, a scalar, got shape \(2,\)"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.ones(2))


# Being a value, with optax's members.


def test_it_is_a_value_with_the_members_of_optax_s_class():
    inner = gt.chain(gt.clip_by_global_norm(1.0), gt.adam(0.1))
    tx = gt.MultiSteps(inner, 4)
    assert repr(tx) == "MultiSteps(chain(clip_by_global_norm(1.0), adam(0.1)), 4)"
    assert tx == gt.MultiSteps(inner, 4) and hash(tx) == hash(gt.MultiSteps(inner, 4)) and tx != gt.MultiSteps(inner, 5)
    assert tx.inner_opt == inner and tx.gradient_transformation() is tx
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert jax.tree.leaves(tx)[-1] == 4 and jax.tree.map(lambda x: x, tx) == tx
    assert gt.states.MultiStepsState._fields == optax.MultiStepsState._fields
    state = tx.init(PARAMS)
    assert tx.parts(state) == {"inner_opt_state": (inner, state.inner_opt_state)}


def test_eval_params_go_through_it():
    tx = gt.MultiSteps(gt.schedule_free_sgd(0.1), 2)
    params, state = PARAMS, tx.init(PARAMS)
    for g in gradients(4):
        updates, state = tx.update(g, state, params)
        params = gt.apply_updates(params, updates)
    expected = gt.eval_params(state.inner_opt_state, params)
    assert_close(gt.eval_params(state, params), expected)
    assert np.any(np.asarray(expected["w"]) != np.asarray(params["w"]))


# In and around others.


def test_rounds_of_rounds_and_chains():
    grads = gradients(6)
    want = jax.tree.map(lambda g: -0.2 * g, mean(grads))
    assert_close(run(gt.MultiSteps(gt.MultiSteps(gt.sgd(0.2), 3), 2), grads)[-1][0], want)
    assert_close(run(gt.chain(gt.MultiSteps(gt.identity(), 6), gt.scale(-0.2)), grads)[-1][0], want)
    assert_close(run(gt.MultiSteps(gt.chain(gt.scale(2.0), gt.sgd(0.1)), 6), grads)[-1][0], want)


def test_inside_and_around_masks():
    mask, grads = {"w": True, "b": False}, gradients(2)
    updates = run(gt.masked(gt.MultiSteps(gt.sgd(1.0), 2), mask), grads)[-1][0]
    assert_close(updates, {"w": -mean(grads)["w"], "b": grads[1]["b"]})
    updates = run(gt.MultiSteps(gt.masked(gt.sgd(1.0), mask), 2), grads)[-1][0]
    assert_close(updates, {"w": -mean(grads)["w"], "b": mean(grads)["b"]})


def test_leaves_without_a_gradient():
    params = {**PARAMS, "none": None, "whole": jnp.arange(2)}
    hole = np.zeros(2, jax.dtypes.float0)
    trees = [{**g, "none": None, "whole": hole, "b": None} for g in gradients(2)]
    done = run(gt.MultiSteps(gt.adam(0.1), 2), trees, params)
    assert all(u["none"] is None and u["b"] is None and u["whole"] is None for u, _ in done)
    assert_close(
        done[1][0]["w"], run(gt.adam(0.1), [mean([{"w": t["w"]} for t in trees])], {"w": params["w"]})[0][0]["w"]
    )


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((gt.adam, 2), "opt must be a transformation, got the factory adam"),
        ((gt.sgd(0.1), 0), "every_k_schedule must be a whole number >= 1, got 0"),
        ((gt.sgd(0.1), "4"), "every_k_schedule must be a number, an array or a schedule"),
        ((gt.sgd(0.1), 2, 1), "use_grad_mean must be True or False"),
        ((gt.sgd(0.1), 2, True, 5), "should_skip_update_fn must be a function or None, got 5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=f"MultiSteps: {message}"):
        gt.MultiSteps(*arguments)


def test_bad_input_to_update():
    tx = gt.MultiSteps(gt.sgd(0.1), 2)
    state = tx.init(PARAMS)
    with pytest.raises(TypeError, match="MultiSteps: state must be the MultiStepsState"):
        tx.update(PARAMS, PARAMS, state)
    with pytest.raises(ValueError, match=r"MultiSteps: the gradient at \['b'\] has shape \(1,\), its parameter has"):
        tx.update({**PARAMS, "b": jnp.ones(1)}, state, PARAMS)
    with pytest.raises(ValueError, match=r"the trees do not match: the gradients have \['c'\]"):
        tx.update({**PARAMS, "c": jnp.ones(1)}, state, PARAMS)
    with pytest.raises(TypeError, match="averaged must be a tuple of names"):
        gt.MultiSteps(gt.sgd(0.1), 2, averaged="value")
    with pytest.raises(TypeError, match="must return a boolean scalar and a report, got float32"):
        wrong = gt.MultiSteps(gt.sgd(0.1), 2, should_skip_update_fn=lambda g, step, p: (jnp.ones(2), ()))
        wrong.update(PARAMS, wrong.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"every_k_schedule must be a scalar at each step, got shape \(2,\)"):
        many = gt.MultiSteps(gt.sgd(0.1), jnp.asarray([1.0, 2.0]))
        many.update(PARAMS, many.init(PARAMS), PARAMS)
