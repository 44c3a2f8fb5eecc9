# SPDX-License-Identifier: Apache-2.0
"""States inside Flax's variables and frozen dictionaries, and containers whose keys are the names of parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

RATE = gt.linear_schedule(0.1, 0.0, 100)
PARAMS = {"a": {"bias": jnp.zeros(3), "kernel": jnp.ones((2, 3))}, "b": jnp.ones(2)}
GRADS = jax.tree.map(lambda p: jnp.full(p.shape, 0.5), PARAMS)


def stepped(tx, params=PARAMS, grads=GRADS, steps=3):
    with jax.disable_jit():
        state = tx.init(params)
        for _ in range(steps):
            _, state = tx.update(grads, state, params)
    return state


@pytest.fixture
def nnx():
    return pytest.importorskip("flax.nnx")


def as_nnx(nnx, state):
    """As `nnx.Optimizer` keeps it: each array in a variable, each tree of the parameters an `nnx.State`."""
    held = jax.tree.map(nnx.Variable, state)
    return jax.tree.map(lambda x: nnx.State(x) if isinstance(x, dict) else x, held, is_leaf=lambda x: type(x) is dict)


def frozen(tree):
    freeze = pytest.importorskip("flax.core").freeze
    return jax.tree.map(lambda x: freeze(x) if isinstance(x, dict) else x, tree, is_leaf=lambda x: type(x) is dict)


def all_carried(report):
    assert report.initialized == report.dropped == report.grown == report.notes == ()


@pytest.mark.parametrize("pure", ["neither", "state", "params", "both"])
def test_migrate_of_an_nnx_optimizer_keeps_moments_and_counts(nnx, pure):
    tx = gt.adamw(RATE)
    state = stepped(tx)
    given = state if pure in ("state", "both") else as_nnx(nnx, state)
    params = PARAMS if pure in ("params", "both") else nnx.State(jax.tree.map(nnx.Param, PARAMS))
    new, report = gt.migrate(given, tx, params)
    all_carried(report)
    assert jax.tree.structure(new) == jax.tree.structure(tx.init(params))
    chex.assert_trees_all_equal(jax.tree.leaves(new), jax.tree.leaves(state))


@pytest.mark.slow
def test_an_optimizer_of_nnx_itself(nnx):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tx = gt.chain(gt.adamw(RATE), gt.params_ema(0.5))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    grads = nnx.grad(lambda m: jnp.sum(m(jnp.ones((1, 2)))))(model)
    first = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    optimizer.update(model, grads)
    params = nnx.state(model, nnx.Param)
    new, report = gt.migrate(optimizer.opt_state, tx, params)
    all_carried(report)
    assert int(jax.tree.leaves(new[0][0].count)[0]) == 1
    found = gt.eval_params(optimizer.opt_state, params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    for ema, p0, p in zip(*map(jax.tree.leaves, (found, first, params)), strict=True):
        np.testing.assert_allclose(ema, 0.5 * p0 + 0.5 * p, rtol=1e-6)
    # What surgery makes goes back into the optimizer.
    optimizer.opt_state = gt.restart(gt.reset(tx, optimizer.opt_state, params, "bias"), at=7)
    optimizer.update(model, grads)
    assert int(gt.metrics(optimizer.opt_state, tx)["learning_rate"] * 1000) == 93
    # After the reset, mu of the bias is that of one gradient, 1.
    np.testing.assert_allclose(gt.get_slot(optimizer.opt_state, params, "bias", "0.0.mu"), 0.1, rtol=1e-5)
    np.testing.assert_allclose(gt.get_slot(optimizer.opt_state, params, "kernel", "0.0.mu"), 0.19, rtol=1e-5)


@pytest.mark.parametrize("wrap", ["nnx", "frozen"])
@pytest.mark.parametrize("of_params", [True, False])
def test_slots_are_found_under_any_wrapping(nnx, wrap, of_params):
    tx = gt.adamw(RATE)
    state = stepped(tx)
    given = as_nnx(nnx, state) if wrap == "nnx" else frozen(state)
    params = PARAMS
    if of_params:
        params = nnx.State(jax.tree.map(nnx.Param, PARAMS)) if wrap == "nnx" else frozen(PARAMS)
    names = [(s.parameter, s.name) for s in gt.find_slots(state, PARAMS)]
    assert [(s.parameter, s.name) for s in gt.find_slots(given, params)] == names and len(names) == 6
    np.testing.assert_array_equal(gt.get_slot(given, params, "a/bias", "nu"), state[0].nu["a"]["bias"])
    new = gt.set_slot(given, params, "a/bias", "nu", jnp.arange(3.0))
    assert jax.tree.structure(new) == jax.tree.structure(given)
    np.testing.assert_array_equal(gt.get_slot(new, PARAMS, "a/bias", "nu"), np.arange(3.0))
    cleared = gt.reset(tx, given, params, "a/bias")
    assert jax.tree.structure(cleared) == jax.tree.structure(given)
    want = gt.reset(tx, state, PARAMS, "a/bias")
    chex.assert_trees_all_equal(jax.tree.leaves(cleared), jax.tree.leaves(want))
    assert gt.describe(tx, params, given).slots == gt.describe(tx, PARAMS, state).slots


def test_stored_slots_of_nnx_variables(nnx):
    tx = gt.stored(gt.adam(0.1), {"mu": gt.precision.bfloat16()}, min_size=1)
    params = nnx.State(jax.tree.map(nnx.Param, PARAMS))
    assert gt.get_slot(tx.init(params), params, "a/kernel", "mu").dtype == jnp.bfloat16


def test_a_state_without_the_structure_of_the_parameters_says_so():
    state = stepped(gt.adam(0.1))
    with pytest.raises(
        ValueError, match=r"the state has no slot 'mu'; nothing in it has the structure of the param.* c"
    ):
        gt.get_slot(state, {"c": jnp.ones(2)}, "c", "mu")


# Labels that are the names of parameters.

FLAT = {"old": jnp.ones(2), "new": jnp.ones(3)}


def by_names(inner):
    return gt.partition({"old": inner, "new": inner}, {"old": "old", "new": "new"})


def test_labels_are_no_parameters():
    tx = by_names(gt.adam(RATE))
    state = stepped(tx, FLAT, FLAT)
    at = "inner_states.{0}.inner_state.0.{1}"
    assert {(s.parameter, s.name) for s in gt.find_slots(state, FLAT)} == {
        (n, at.format(n, slot)) for n in FLAT for slot in ("mu", "nu")
    }
    cleared = gt.reset(tx, state, FLAT, "new").inner_states["new"].inner_state
    np.testing.assert_array_equal(cleared[0].mu["new"], 0)
    # The averages of this label have all begun anew, and so has their age, but not the schedule.
    assert int(cleared[0].count) == 0 and int(cleared[1].count) == 3
    stages = {slot.field for slot in gt.describe(tx, FLAT).slots if slot.parameter == "new"}
    assert stages == {f"inner_states.new.inner_state[0].{slot}" for slot in ("mu", "nu")}


def test_labels_without_slots():
    """Nothing but counts under the labels, which a reset must not take for slots."""
    tx = by_names(gt.sgd(RATE))
    state = stepped(tx, FLAT, FLAT)
    assert gt.find_slots(state, FLAT) == []
    with pytest.raises(ValueError, match="reset: the state holds nothing .* the parameters that 'new' chooses"):
        gt.reset(tx, state, FLAT, "new")


@pytest.mark.parametrize("restored", [False, True])
def test_migrate_with_labels_that_are_names(restored):
    tx = by_names(gt.adam(RATE))
    state = stepped(tx, FLAT, FLAT)
    new, report = gt.migrate(_plain(state) if restored else state, tx, FLAT)
    chex.assert_trees_all_equal(new, state)
    all_carried(report)
    new, _ = gt.migrate(stepped(gt.adam(0.1), FLAT, FLAT), tx, FLAT, step=50)
    for label in FLAT:
        adam, schedule = new.inner_states[label].inner_state
        assert (int(adam.count), int(schedule.count)) == (3, 50)
        assert float(adam.mu[label][0]) > 0


def test_migrate_from_labels_that_are_names_with_the_old_transformation():
    old = by_names(gt.adam(RATE))
    state = stepped(old, FLAT, FLAT)
    new, _ = gt.migrate(_plain(state), gt.adam(RATE), FLAT, old_tx=old)
    for slot in ("mu", "nu"):
        for n in FLAT:
            want = gt.get_slot(state, FLAT, n, slot)
            np.testing.assert_array_equal(gt.get_slot(new, FLAT, n, slot), want)


def test_named_stages_with_the_names_of_parameters():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = gt.named_chain(("a", gt.trace(0.9)), ("b", gt.scale_by_schedule(RATE)))
    state = stepped(tx, params, params)
    assert [s.name for s in gt.find_slots(dict(state), params)] == ["a.trace", "a.trace"]
    assert int(gt.reset(tx, state, params, "b")["b"].count) == 3


def _plain(state):
    """As a checkpoint is restored without classes: tuples and named tuples as dictionaries; what is empty is gone."""
    if hasattr(state, "_fields"):
        state = state._asdict()
    elif isinstance(state, tuple | list):
        state = {str(i): x for i, x in enumerate(state)}
    if not isinstance(state, dict):
        return state
    return {k: _plain(x) for k, x in state.items() if jax.tree.leaves(x)}


@pytest.mark.parametrize("given", ["x", {"mu": object()}, lambda: 0])
def test_migrate_refuses_what_is_no_state(given):
    with pytest.raises(
        TypeError, match=r"old_state must be a state.*the order is migrate\(old_state, new_tx, params\)"
    ):
        gt.migrate(given, gt.adam(0.1), PARAMS)
