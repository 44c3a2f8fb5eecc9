# SPDX-License-Identifier: Apache-2.0
"""`with_roles` in use: inside and around wrappers, under jit, with states from elsewhere, and its errors."""

import functools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx import Role

PARAMS = {
    "w": jnp.linspace(-1, 2, 24).reshape(2, 3, 4) ** 3,
    "b": jnp.linspace(1, 6, 6).reshape(3, 2),
    "e": jnp.full((5, 2), 0.3),
}
GRADIENTS = jax.tree.map(lambda p: jnp.sin(3 * p) + 0.1, PARAMS)
RULES = (("w", Role("hidden", 0, in_axes=1, out_axes=2)), ("b", Role("bias", -1)), ("e", Role("embedding")))
AXES = {"w": 0, "b": 1}


def apart(tree):
    """The tree with a leaf for each parameter of a stack."""
    return {n: list(jnp.moveaxis(x, AXES[n], 0)) if n in AXES and x is not None else x for n, x in tree.items()}


def step(tx, gradients=GRADIENTS, params=PARAMS, **extra):
    return tx.update(gradients, tx.init(params), params, **extra)


def assert_same(found, expected, rtol=1e-6):
    chex.assert_trees_all_close(found, expected, rtol=rtol, atol=1e-7)


def as_layers(tx, **extra):
    """The updates of a transformation that is told the layers as leaves."""
    return step(tx, apart(GRADIENTS), apart(PARAMS), **extra)[0]


SENSITIVE = gt.chain(gt.scale_by_adam(), gt.scale_by_trust_ratio(), gt.scale_by_lr(0.1))


def keep(params):
    """A mask by rank, of one parameter of a stack: of `w`, `b` and `e` only `b` is a vector."""
    return jax.tree.map(lambda p: p.ndim != 1, params)


# Wrappers inside and around.

LABELS = {"w": "x", "b": "y", "e": "x"}
WRAPPERS = {
    "masked inside": lambda tx, rules: gt.with_roles(rules, gt.masked(tx, keep)),
    "partition inside": lambda tx, rules: gt.with_roles(
        rules, gt.partition({True: tx, False: gt.scale_by_trust_ratio()}, keep)
    ),
    "masked around": lambda tx, rules: gt.masked(gt.with_roles(rules, tx), {"w": True, "b": False, "e": True}),
    "partition around": lambda tx, rules: gt.partition(
        {"x": gt.with_roles(rules, tx), "y": gt.with_roles(rules, gt.scale_by_trust_ratio())}, LABELS
    ),
    "MultiSteps inside": lambda tx, rules: gt.with_roles(rules, gt.MultiSteps(tx, 1)),
    "MultiSteps around": lambda tx, rules: gt.MultiSteps(gt.with_roles(rules, tx), 1),
    "inject_hyperparams inside": lambda tx, rules: gt.with_roles(
        rules, gt.chain(tx, gt.inject_hyperparams(gt.scale)(step_size=0.5))
    ),
    "inject_hyperparams around": lambda tx, rules: gt.inject_hyperparams(
        lambda rate: gt.with_roles(rules, gt.chain(tx, gt.scale(rate)))
    )(rate=0.5),
    "guard inside": lambda tx, rules: gt.with_roles(rules, gt.apply_if_finite(tx, 2)),
    "guard around": lambda tx, rules: gt.apply_if_finite(gt.with_roles(rules, tx), 2),
    "repeated": lambda tx, rules: gt.with_roles(rules, gt.with_roles(rules, tx)),
    "Optax's chain inside": lambda tx, rules: gt.with_roles(rules, optax.chain(tx, optax.scale(0.5))),
    "Optax's masked around": lambda tx, rules: optax.masked(
        gt.with_roles(rules, tx), {"w": True, "b": False, "e": True}
    ),
}
LAYERS = (("w/*", Role("hidden", in_axes=0, out_axes=1)), ("b/*", Role("bias")), ("e", Role("embedding")))


def spread_out(tree):
    """A tree of masks or labels for the layers."""
    return {n: [x, x] if n in AXES else x for n, x in tree.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPERS)
def test_in_wrappers(name, standard_promotion):
    found, _ = step(WRAPPERS[name](SENSITIVE, RULES))
    expected = as_layers(WRAPPERS[name](SENSITIVE, LAYERS))
    assert_same(apart(found), expected)


@pytest.mark.slow
def test_lookahead_around():
    tx = gt.lookahead(gt.with_roles(RULES, SENSITIVE), 2, 0.5)
    layers = gt.lookahead(SENSITIVE, 2, 0.5)
    params, theirs = gt.states.LookaheadParams.init_synced(PARAMS), gt.states.LookaheadParams.init_synced(apart(PARAMS))
    found, _ = tx.update(GRADIENTS, tx.init(params), params)
    expected, _ = layers.update(apart(GRADIENTS), layers.init(theirs), theirs)
    assert_same(apart(found.fast), expected.fast)


@pytest.mark.slow
def test_lookahead_inside():
    tx = gt.with_roles(RULES, gt.lookahead(SENSITIVE, 2, 0.5))
    found, _ = step(tx)
    assert_same(apart(found), as_layers(gt.lookahead(SENSITIVE, 2, 0.5)))


@pytest.mark.slow
def test_a_foreign_transformation_is_wrong_on_stacks_and_right_when_unstacked(standard_promotion):
    foreign = optax.scale_by_trust_ratio()
    expected = as_layers(foreign)
    plain, _ = step(gt.with_roles(RULES, foreign))
    assert float(jnp.max(jnp.abs(plain["w"] - jnp.stack(expected["w"])))) > 0.1
    found, _ = step(gt.with_roles(RULES, gt.unstacked(foreign)))
    assert_same(apart(found), expected, 1e-6)
    adam = optax.chain(optax.scale_by_adam(), foreign)
    tx = gt.with_roles(RULES, gt.unstacked(adam))
    state, theirs = tx.init(PARAMS), adam.init(apart(PARAMS))
    assert [x.shape for x in state[0].mu["w"]] == [(3, 4), (3, 4)]
    for _ in range(3):
        found, state = jax.jit(tx.update)(GRADIENTS, state, PARAMS)
        expected, theirs = adam.update(apart(GRADIENTS), theirs, apart(PARAMS))
        assert_same(apart(found), expected, 1e-5)


def test_unstacked_leaves_frozen_layers_alone():
    tx = gt.with_roles(RULES, gt.unstacked(gt.groups([("w/0", "frozen"), ("b/*", "frozen")], gt.sgd(1.0))))
    found, _ = step(tx)
    assert found["b"] is None
    np.testing.assert_array_equal(found["w"][0], 0)
    np.testing.assert_allclose(found["w"][1], -GRADIENTS["w"][1])


def test_two_parts_of_complex_stacks():
    params = {"w": jax.lax.complex(PARAMS["w"], 2 * PARAMS["w"] + 1)}
    tx = gt.split_real_and_imaginary(gt.scale_by_trust_ratio())
    layers = list(params["w"])
    found, _ = step(gt.with_roles((("w", Role(stack=0)),), tx), params, params)
    expected, _ = step(tx, layers, layers)
    np.testing.assert_allclose(found["w"], jnp.stack(expected), rtol=1e-6)


# Extra arguments.


def half_square(params):
    return 0.5 * sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(params))


@pytest.mark.slow
def test_functions_see_the_parameters_as_they_are():
    seen = []

    def value_fn(params):
        seen.append(jax.tree.structure(params))
        return half_square(params)

    value, gradients = jax.value_and_grad(half_square)(PARAMS)
    for tx in (gt.lbfgs(), gt.chain(gt.sgd(1.0), gt.scale_by_backtracking_linesearch(5))):
        extra = {"value": value, "grad": gradients, "value_fn": value_fn}
        expected, _ = step(tx, gradients, **extra)
        found, _ = step(gt.with_roles(RULES, tx), gradients, **extra)
        assert_same(found, expected, 1e-5)
    assert set(seen) == {jax.tree.structure(PARAMS)}


def test_functions_that_return_trees():
    tx = gt.sam(gt.sgd(0.1), gt.chain(gt.normalize(), gt.sgd(0.05)), opaque_mode=True)
    extra = {"grad_fn": lambda params, i: jax.grad(half_square)(params)}
    assert_same(step(gt.with_roles(RULES, tx), **extra)[0], step(tx, **extra)[0])


@pytest.mark.parametrize("params", [jnp.ones(3), jnp.ones(())], ids=["vector", "scalar"])
def test_parameters_that_are_one_array(params):
    """A number is built like them, but is none of them."""
    for tx in (gt.polyak_sgd(), gt.momo(0.1)):
        expected, _ = step(tx, params, params, value=jnp.asarray(1.5))
        found, _ = step(gt.with_roles((("**", Role()),), tx), params, params, value=jnp.asarray(1.5))
        np.testing.assert_array_equal(found, expected)


def test_needs_are_those_inside():
    assert gt.needs(gt.with_roles(RULES, gt.unstacked(gt.momo(0.1)))) == {"value"}


# States.

BASES = {
    "adam": lambda: gt.adam(gt.schedules.linear(10)),
    "adafactor": lambda: gt.adafactor(0.1),
    "muon": lambda: gt.muon(0.1),
    "schedule_free": lambda: gt.schedule_free_adamw(0.1),
    "optax": lambda: optax.adam(0.1),
    "masked": lambda: gt.masked(gt.scale_by_adam(), keep),
}


@pytest.mark.parametrize("name", BASES)
def test_the_state_is_built_as_that_inside(name):
    plain = (("**", Role()),)
    state = gt.with_roles(plain, BASES[name]()).init(PARAMS)
    without = BASES[name]().init(PARAMS)
    if name not in ("muon", "masked"):  # those ask for roles, or for ranks
        assert jax.tree.structure(state) == jax.tree.structure(without)
    state = gt.with_roles(RULES, BASES[name]()).init(PARAMS)
    assert not any(type(x).__name__ == "Boxed" for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "role")))
    if name not in ("adafactor", "muon", "masked"):
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, without)


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_jit_scan_and_vmap(name, standard_promotion):
    tx = gt.with_roles(RULES, BASES[name]())
    state, found = tx.init(PARAMS), []
    for _ in range(2):
        updates, state = tx.update(GRADIENTS, state, PARAMS)
        found.append(updates)

    def body(state, _):
        updates, state = tx.update(GRADIENTS, state, PARAMS)
        return state, updates

    last, updates = jax.jit(lambda: jax.lax.scan(body, tx.init(PARAMS), length=2))()
    assert_same(updates, jax.tree.map(lambda *xs: jnp.stack(xs), *found), 1e-5)
    assert jax.tree.structure(last) == jax.tree.structure(state)
    many = jax.vmap(lambda scale: step(tx, jax.tree.map(lambda g: scale * g, GRADIENTS))[0])(jnp.asarray([1.0, 2.0]))
    assert_same(jax.tree.map(lambda x: x[0], many), found[0], 1e-5)


def test_a_transformation_is_an_argument():
    traces = []

    @jax.jit
    def run(tx):
        traces.append(1)
        return step(tx)[0]

    found = [run(gt.with_roles(RULES, gt.lamb(rate))) for rate in (0.1, 0.2)]
    assert len(traces) == 1
    assert_same(jax.tree.map(lambda x: 2 * x, found[0]), found[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_a_state_from_elsewhere(name, standard_promotion):
    """A new process has never run `init`: what it needs to know of the state, it finds out."""
    state = pickle.loads(pickle.dumps(gt.with_roles(RULES, BASES[name]()).init(PARAMS)))
    tx, fresh = gt.with_roles(RULES, BASES[name]()), gt.with_roles(RULES, BASES[name]())
    expected = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
    assert_same(jax.jit(fresh.update)(GRADIENTS, state, PARAMS), expected, 1e-5)


@pytest.mark.slow
def test_eval_params_metrics_and_restart():
    tx = gt.with_roles(
        RULES,
        gt.chain(gt.record_metrics(gt.scale_by_adam(), ("update_norm",)), gt.scale_by_lr(gt.schedules.linear(10))),
    )
    _, state = step(tx)
    assert set(gt.metrics(state, tx)) == {"update_norm", "learning_rate"}
    updates, _ = tx.update(GRADIENTS, gt.restart(state, 10), PARAMS)
    assert not any(np.any(u) for u in jax.tree.leaves(updates))
    tx = gt.with_roles(RULES, gt.schedule_free(gt.lamb(0.1), 0.1))
    layers = gt.schedule_free(gt.lamb(0.1), 0.1)
    updates, state = step(tx)
    theirs, their_state = step(layers, apart(GRADIENTS), apart(PARAMS))
    found = gt.eval_params(state, gt.apply_updates(PARAMS, updates))
    assert_same(apart(found), gt.eval_params(their_state, gt.apply_updates(apart(PARAMS), theirs)), 1e-5)


# What is missing.


@pytest.mark.slow
def test_without_parameters():
    for tx in (
        gt.adam(0.1),
        gt.scale_by_muon(weight_dimension_numbers=as_columns),
        gt.masked(gt.scale_by_adam(), keep),
    ):
        tx = gt.with_roles(RULES, tx)
        state = tx.init(PARAMS)
        expected, _ = tx.update(GRADIENTS, state, PARAMS)
        assert_same(tx.update(GRADIENTS, state)[0], expected)
    tx = gt.with_roles(RULES, gt.lamb(0.1))
    with pytest.raises(ValueError, match="update needs the parameters"):
        tx.update(GRADIENTS, tx.init(PARAMS))


def as_columns(params):
    return jax.tree.map(lambda p: gt.MuonDimensionNumbers(tuple(range(p.ndim)), ()), params)


@pytest.mark.parametrize("name", ["adam", "muon", "adafactor", "schedule_free", "masked"])
def test_gradients_and_parameters_that_are_none(name):
    tx = gt.with_roles(RULES, BASES[name]())
    state = tx.init(PARAMS)
    found, new = tx.update({**GRADIENTS, "w": None}, state, PARAMS)
    assert found["w"] is None
    expected, _ = tx.update(GRADIENTS, state, PARAMS)
    assert_same({n: found[n] for n in "be"}, {n: expected[n] for n in "be"})
    assert jax.tree.structure(new) == jax.tree.structure(state)
    params, gradients = {**PARAMS, "e": None}, {**GRADIENTS, "e": None}
    rules = RULES[:2]
    fewer = gt.with_roles(rules, BASES[name]())
    updates, _ = step(fewer, gradients, params)
    assert updates["e"] is None and updates["w"].shape == (2, 3, 4)


def test_none_without_parameters_is_an_error_if_it_matters():
    tx = gt.with_roles(RULES, gt.muon(0.1))
    with pytest.raises(ValueError, match=r"where gradients are None, .* call update\(updates, state, params\)"):
        tx.update({**GRADIENTS, "w": None}, tx.init(PARAMS))


def test_the_empty_tree():
    tx = gt.with_roles(RULES, gt.adam(0.1))
    assert tx.update({}, tx.init({}), {})[0] == {}


# Rules of all kinds, and errors.


@pytest.mark.slow
def test_a_guess_as_rules():
    params = {
        "layers": {"norm": {"scale": jnp.ones((3, 4))}, "up": {"kernel": jnp.sin(jnp.arange(36.0)).reshape(3, 3, 4)}}
    }
    by_guess = gt.with_roles(gt.infer_roles, gt.lamb(0.1))
    told = gt.with_roles((("**", Role(stack=0)),), gt.lamb(0.1))
    assert_same(step(by_guess, params, params)[0], step(told, params, params)[0])
    partly = gt.with_roles((("**", functools.partial(gt.infer_roles, stack=0)),), gt.lamb(0.1))
    assert_same(step(partly, params, params)[0], step(told, params, params)[0])


def test_a_tree_as_rules():
    tree = gt.roles(PARAMS, RULES)
    tx = gt.with_roles(tree, SENSITIVE)
    assert hash(tx) == hash(gt.with_roles(gt.roles(PARAMS, RULES), SENSITIVE))
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert_same(step(tx)[0], step(gt.with_roles(RULES, SENSITIVE))[0])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (RULES[:2], "no rule for e"),
        ((*RULES, ("nix", Role())), r"\('nix', Role\('other'\)\), which matches no parameter"),
        ((("w", Role(stack=3)), ("**", Role())), r"the role of w, .* by the rule .* stack names axis 3"),
        ((("w", Role(stack=(0, -3))), ("**", Role())), "axis 0 is named more than once"),
    ],
)
def test_rules_that_do_not_fit(rules, message):
    with pytest.raises(ValueError, match=message):
        gt.with_roles(rules, gt.adam(0.1)).init(PARAMS)


def test_rules_for_what_is_hidden_are_not_without_use():
    tx = gt.masked(gt.with_roles(RULES, gt.adam(0.1)), {"w": True, "b": False, "e": True})
    assert step(tx)[0]["b"] is GRADIENTS["b"]
    with pytest.raises(ValueError, match="no rule for e"):
        gt.masked(gt.with_roles(RULES[:2], gt.adam(0.1)), {"w": True, "b": False, "e": True}).init(PARAMS)


def test_swapped_arguments_and_foreign_states():
    tx = gt.with_roles(RULES, gt.muon(0.1))
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match="the gradients have .*which the parameters lack"):
        tx.update(GRADIENTS, PARAMS, state)
    with pytest.raises(TypeError, match=r"with_roles: state must be what init .* update\(updates, state, params\)"):
        tx.update(GRADIENTS, gt.adam(0.1).init(PARAMS), PARAMS)
    with pytest.raises(TypeError, match="with_roles: inner must be a transformation"):
        gt.with_roles(RULES, gt.adam)
