# SPDX-License-Identifier: Apache-2.0
"""Gradient accumulation with weights, and rounds that end early."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.asarray(0.5)}
TOKENS = [3, 40, 7, 1, 0, 100]
NAN = float("nan")


def gradients(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return [{n: rng.normal(size=p.shape).astype(np.float32) for n, p in PARAMS.items()} for _ in range(count)]


def run(tx, grads, **extra):
    """The updates and states of all calls; extra arguments have a value for each call."""
    state, done = tx.init(PARAMS), []
    update = jax.jit(tx.update)
    for i, g in enumerate(grads):
        updates, state = update(jax.tree.map(jnp.asarray, g), state, PARAMS, **{n: x[i] for n, x in extra.items()})
        done.append((updates, state))
    return done


def weighted(grads, weights, name):
    """Σ w g / Σ w in double precision."""
    pairs = [(w, np.float64(g[name])) for g, w in zip(grads, weights, strict=True) if w > 0]
    return sum(w * g for w, g in pairs) / sum(w for w, _ in pairs)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_an_update_is_made_from_the_weighted_mean(kind):
    grads = gradients()
    grads[4] = jax.tree.map(lambda g: g * np.float32(NAN), grads[4])  # the mean over no tokens
    tx = gt.MultiSteps(gt.sgd(1.0), 3, weight="tokens", averaged=("value",))
    values = [np.float32(i) for i in range(6)]
    done = run(tx, grads, tokens=[kind(n) for n in TOKENS], value=values)
    for i in (0, 1, 3, 4):
        assert not any(np.any(u) for u in jax.tree.leaves(done[i][0]))
    for end in (3, 6):
        updates, state = done[end - 1]
        there, weights = grads[end - 3 : end], TOKENS[end - 3 : end]
        for name in PARAMS:
            np.testing.assert_allclose(updates[name], -weighted(there, weights, name), rtol=1e-5, atol=1e-6)
        micro = state.skip_state
        np.testing.assert_allclose(
            micro.averages["value"], np.average(values[end - 3 : end], weights=weights), rtol=1e-6
        )
        assert (float(micro.total_weight), int(micro.kept)) == (sum(weights), sum(w > 0 for w in weights))
    assert int(done[-1][1].skip_state.skipped) == 1


def test_it_is_the_step_on_all_tokens():
    """Of a loss whose gradient is the mean of 60 rows, in micro-batches of 10, 20 and 30."""
    x = np.random.default_rng(3).normal(size=(60, 3))
    tx = gt.MultiSteps(gt.sgd(1.0), 3, weight="tokens")
    u = p = jnp.ones(3)
    state = tx.init(p)
    for part in np.split(x, [10, 30]):
        u, state = tx.update(jnp.asarray(part.mean(0), jnp.float32), state, tokens=len(part))
    np.testing.assert_allclose(u, -x.mean(0), rtol=1e-5, atol=1e-7)


def test_equal_weights_are_no_weights():
    grads = gradients()
    have = run(gt.MultiSteps(gt.sgd(0.1), 3, weight="n"), grads, n=[np.float32(0.7)] * 6)
    for (u, _), (v, _) in zip(have, run(gt.MultiSteps(gt.sgd(0.1), 3), grads), strict=True):
        for name in PARAMS:
            np.testing.assert_allclose(u[name], v[name], rtol=1e-5, atol=1e-7)


def test_a_total_of_nothing_makes_no_update():
    tx = gt.MultiSteps(gt.chain(gt.add_decayed_weights(0.1), gt.sgd(0.1)), 4, weight="w")
    done = run(tx, gradients(8), w=list(map(np.float32, (0, -1, NAN, np.inf, 0, 1, 0, 0))))
    updates, state = done[3]
    assert all(np.all(u == 0) for u in jax.tree.leaves(updates))
    assert not any(np.any(np.isnan(x)) for x in jax.tree.leaves(state))
    assert int(state.gradient_step) == 0 and not tx.has_updated(state) and gt.metrics(state)["step_skipped"]
    state = done[7][1]
    assert int(state.gradient_step) == 1 and tx.has_updated(state) and not gt.metrics(state)["step_skipped"]
    assert float(state.skip_state.total_weight) == 1.0


def test_a_weighted_sum():
    grads = gradients(2)
    tx = gt.MultiSteps(gt.sgd(1.0), 2, use_grad_mean=False, weight="w")
    updates, _ = run(tx, grads, w=[np.float32(2.0), np.float32(0.5)])[-1]
    np.testing.assert_allclose(updates["w"], -(2 * grads[0]["w"] + 0.5 * grads[1]["w"]), rtol=1e-6)


def test_the_state_has_one_field_more_only_with_a_weight():
    plain, with_weight = (gt.MultiSteps(gt.sgd(0.1), 2, weight=w).init(PARAMS).skip_state for w in (None, "n"))
    assert type(plain) is gt.states.MicroStepsState
    assert with_weight._fields == (*plain._fields, "total_weight")
    tx = gt.MultiSteps(gt.sgd(0.1), 2, weight="n")
    before = jax.eval_shape(tx.init, PARAMS)
    _, after = jax.eval_shape(lambda n: tx.update(PARAMS, tx.init(PARAMS), PARAMS, n=n), jnp.int32(3))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert jax.tree.leaves(before) == jax.tree.leaves(after)


def test_the_weight_is_needed_and_checked():
    tx = gt.MultiSteps(gt.sgd(0.1), 2, weight="tokens", averaged=("value",))
    assert gt.needs(tx) == {"tokens", "value"}
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"MultiSteps: update needs tokens: call update\(.*tokens=...\)"):
        tx.update(PARAMS, state, PARAMS, value=1.0)
    with pytest.raises(ValueError, match=r"update needs tokens, a scalar, got shape \(2,\)"):
        tx.update(PARAMS, state, PARAMS, value=1.0, tokens=jnp.ones(2))
    with pytest.raises(
        TypeError, match="weight must be the name of an argument of update such as 'tokens', or None, got 3"
    ):
        gt.MultiSteps(gt.sgd(0.1), 2, weight=3)  # type: ignore[arg-type]  # that is the question


# Rounds that end early.


@pytest.mark.parametrize(
    "wrap", [lambda tx: tx, lambda tx: gt.guard(gt.chain(gt.clip(99.0), tx))], ids=["bare", "wrapped"]
)
def test_a_round_ends_with_the_call_that_says_so(wrap):
    grads, ends = gradients(6), [False, True, False, False, False, True]
    done = run(wrap(gt.MultiSteps(gt.sgd(1.0), 3)), grads, end_round=ends)
    sizes = {1: 2, 4: 3, 5: 1}
    for i, (updates, _) in enumerate(done):
        want = np.mean([g["w"] for g in grads[i + 1 - sizes[i] : i + 1]], axis=0) if i in sizes else np.zeros((2, 3))
        np.testing.assert_allclose(updates["w"], -want, rtol=1e-5, atol=1e-7)


def test_the_round_after_an_early_end_is_whole():
    tx = gt.MultiSteps(gt.sgd(1.0), lambda step: jnp.where(step < 1, 3, 2), weight="n")
    ends = [True, False, False, False]
    done = run(tx, gradients(4), end_round=ends, n=[np.float32(2.0)] * 4)
    assert [bool(tx.has_updated(s)) for _, s in done] == [True, False, True, False]
    assert [int(s.gradient_step) for _, s in done] == [1, 1, 2, 2]


def test_a_round_that_ends_without_gradients_makes_no_update():
    tx = gt.MultiSteps(gt.sgd(1.0), 3)
    bad = jax.tree.map(lambda p: np.float32(NAN) * p, PARAMS)
    updates, state = run(tx, [bad], end_round=[True])[-1]
    assert all(np.all(u == 0) for u in jax.tree.leaves(updates))
    assert (int(state.mini_step), int(state.gradient_step)) == (0, 0) and gt.metrics(state)["step_skipped"]


def test_the_end_of_a_round_is_not_handed_on():
    seen = []

    def update(updates, state, params=None, **extra):
        seen.append(set(extra))
        return updates, state

    tx = gt.MultiSteps(gt.GradientTransformationExtraArgs(lambda p: (), update), 2)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, end_round=True, value=1.0)
    assert seen and all(names == {"value"} for names in seen)


@pytest.mark.parametrize("end", [1, jnp.ones(2, bool)])
def test_the_end_of_a_round_is_true_or_false(end):
    tx = gt.MultiSteps(gt.sgd(1.0), 2)
    with pytest.raises(TypeError, match="MultiSteps: end_round must be True or False"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, end_round=end)
