# SPDX-License-Identifier: Apache-2.0
"""Neighboring stages of a chain run as one function on each leaf, with the numbers and states of the stages."""

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

PARAMS = {"a": jnp.linspace(-1.0, 2.0, 6).reshape(2, 3), "b": {"c": jnp.ones(3)}, "none": None}
GRADS = {"a": jnp.linspace(3.0, -2.0, 6).reshape(2, 3), "b": {"c": jnp.arange(3.0)}, "none": None}

falling = gt.linear_schedule(0.1, 0.0, 10)


def calls(tx, params=PARAMS) -> collections.Counter:
    """The compiled functions that one step calls, by name."""
    state = tx.init(params)
    jaxpr = jax.make_jaxpr(tx.update)(params, state, params).jaxpr
    return collections.Counter(e.params["name"] for e in jaxpr.eqns if e.primitive.name in ("jit", "pjit"))


def test_a_chain_of_rules_is_one_call_a_leaf():
    nested = gt.chain(gt.clip(1.0), gt.named_chain(("adam", gt.adamw(falling, nesterov=True)), ("lr", gt.scale(0.5))))
    assert calls(nested)["update"] == 2, "of two leaves"
    assert calls(gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(1e-3)))["update"] == 2, "what is measured comes before"
    late = gt.chain(gt.scale_by_adam(), gt.clip_by_global_norm(1.0), gt.scale_by_adam())
    assert calls(late)["update"] == 4, "the norm is that of all updates of Adam"
    apart = gt.chain(gt.scale_by_adam(), gt.masked(gt.scale_by_adam(), ON_A), gt.scale_by_adam())
    assert calls(apart)["update"] == 2, "a mask leaves stages out where it hides a leaf"
    assert calls(gt.adamw(1e-3, mask=ON_A))["update"] == 2
    measures = gt.chain(gt.scale_by_adam(), gt.masked(gt.clip_by_global_norm(1.0), ON_A), gt.scale_by_adam())
    assert calls(measures)["update"] == 4, "a mask around a norm stands alone, and what it does is no call"


def test_few_operations_are_no_call():
    for tx in (gt.sgd(0.1), gt.sgd(falling, momentum=0.9), gt.chain(gt.add_decayed_weights(0.1), gt.scale(-0.1))):
        assert not calls(tx)["update"], f"{tx}"
    params = {"a": jnp.ones(3), "b": jnp.ones((3, 5))}
    assert calls(gt.sgd(0.1, momentum=0.9, nesterov=True), params)["update"] == 2


def test_whether_operations_are_few_depends_on_the_shape():
    @gt.transformation
    def of_matrices():
        return gt.per_parameter(None, lambda g, slots, p, t: (jnp.sin(jnp.cos(g * g)) * g if g.ndim > 1 else g, slots))

    tx = gt.chain(of_matrices(), gt.scale(-1.0))
    params = {"a": jnp.ones(3), "b": jnp.ones((3, 5)), "c": jnp.ones((4, 5))}
    assert calls(tx, params)["update"] == 2
    assert str(jax.make_jaxpr(tx.update)(params, tx.init(params), params)).count("sin") == 2


ON_A = {"a": True, "b": False, "none": False}


def sums(jaxpr: Any) -> int:
    """How many there are, in functions that are called and in branches too."""
    parts = [jax.tree.leaves([*e.params.values()], is_leaf=lambda x: hasattr(x, "eqns")) for e in jaxpr.eqns]
    here = [e for e in jaxpr.eqns if e.primitive.name == "reduce_sum"]
    return len(here) + sum(sums(x) for found in parts for x in found if hasattr(x, "eqns"))


def test_the_norm_of_the_gradients_is_computed_once():
    """By the guard; what is recorded, and clipping inside of the condition, have it from there."""
    names = ("grad_norm", "clip_fraction")
    tx = gt.guard(gt.record_metrics(gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(1e-3)), names))
    state = tx.init(PARAMS)
    whole, alone = jax.make_jaxpr(tx.update)(GRADS, state, PARAMS), jax.make_jaxpr(gt.global_norm)(GRADS)
    # The norm of the updates, for the fraction, is another one.
    assert sums(whole) == 2 * sums(alone) == 4
    assert "measure" not in str(whole)
    u, state = tx.update(GRADS, state, PARAMS)
    other = gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(1e-3))
    wanted, _ = other.update(GRADS, other.init(PARAMS), PARAMS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), u, wanted)
    np.testing.assert_allclose(state.inner_state.metrics()["grad_norm"], gt.global_norm(GRADS), rtol=1e-6)


def test_a_norm_is_that_of_other_arrays_where_they_differ():
    tx = gt.guard(gt.chain(gt.scale(2.0), gt.clip_by_global_norm(1.0)))
    u, _ = tx.update(GRADS, tx.init(PARAMS))
    np.testing.assert_allclose(gt.global_norm(u), 1.0, rtol=1e-6)
    tx = gt.guard(gt.masked(gt.clip_by_global_norm(1.0), ON_A))
    u, _ = tx.update(GRADS, tx.init(PARAMS))
    np.testing.assert_allclose(gt.global_norm(u["a"]), 1.0, rtol=1e-6)


CHAINS = {
    "a schedule": [gt.scale_by_adam(), gt.add_decayed_weights(0.1), gt.scale_by_lr(falling)],
    "a norm in the middle": [
        gt.trace(0.9),
        gt.clip_by_global_norm(0.5),
        gt.scale_by_adam(),
        gt.clip(0.3),
        gt.scale(-1),
    ],
    "a wrapper in the middle": [
        gt.scale(2.0),
        gt.masked(gt.scale_by_sign(), ON_A),
        gt.ema(0.5),
    ],
    "masks": [
        gt.masked(gt.trace(0.9), ON_A),
        gt.scale_by_adam(),
        gt.masked(gt.add_decayed_weights(falling), lambda p: jax.tree.map(lambda x: x.ndim < 2, p)),
        gt.masked(gt.masked(gt.scale(2.0), ON_A), ON_A),
        gt.masked(gt.scale(3.0), False),
    ],
    "a mask first and last": [gt.masked(gt.scale_by_adam(), ON_A), gt.masked(gt.scale_by_adam(), ON_A)],
    "the same stage twice": [gt.trace(0.9), gt.trace(0.9), gt.scale(-0.1)],
    "numbers of one parameter": [gt.scale_by_adam(), gt.scale_by_trust_ratio(), gt.scale(-0.1)],
    "a scheduled average": [gt.ema(gt.linear_schedule(0.1, 0.9, 10)), gt.scale_by_rms(), gt.scale(-0.1)],
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("nested", [False, True])
def test_the_numbers_and_states_are_those_of_the_stages(x64, name: str, nested: bool):
    stages = CHAINS[name]
    params, first = jax.tree.map(lambda x: x.astype(np.float64), (PARAMS, GRADS))
    tx = gt.chain(*stages[:1], gt.named_chain(*zip("xyz", stages[1:], strict=False))) if nested else gt.chain(*stages)
    if nested and len(stages) > 4:
        tx = gt.chain(gt.chain(*stages[:2]), gt.chain(gt.identity(), *stages[2:]))
    state, states = tx.init(params), [stage.init(params) for stage in stages]
    for factor in (1.0, -2.0, 3.0):
        g = gt.tree.scale(factor, first)
        u, state = tx.update(g, state, params)
        for i, stage in enumerate(stages):
            g, states[i] = stage.update(g, states[i], params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-13, atol=1e-15), u, g)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(states), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-13, atol=1e-15)


def test_groups_differ_in_several_stages_of_a_run():
    base = gt.chain(gt.scale_by_adam(0.9), gt.add_decayed_weights(0.1), gt.scale_by_lr(0.1))
    said = [("a", {"b1": 0.5, "weight_decay": 0.0}), ("b/**", {"learning_rate": gt.times(0.5)})]
    tx = gt.groups(said, base)
    u, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    for key, b1, decay, rate in (("a", 0.5, 0.0, 0.1), ("b", 0.9, 0.1, 0.05)):
        alone = gt.chain(gt.scale_by_adam(b1), gt.add_decayed_weights(decay), gt.scale_by_lr(rate))
        wanted, _ = alone.update(GRADS[key], alone.init(PARAMS[key]), PARAMS[key])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), u[key], wanted)


class Remembered(NamedTuple):
    kept: gt.typing.Updates


def test_an_error_is_that_of_the_stage_and_the_leaf():
    @gt.transformation
    def picky():
        def update(g, slots, p, t):
            if g.shape == (3,):
                raise ValueError("too small")
            return g, slots

        return gt.per_parameter(None, update)

    tx = gt.chain(gt.scale(2.0), gt.trace(0.9), picky(), gt.scale(-1.0))
    with pytest.raises(ValueError, match=r"^picky: at \['b'\]\['c'\]: too small"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)
    tx = gt.chain(gt.scale(2.0), gt.scale_by_adam(), gt.scale(-1.0))
    scaled, adam, rest = tx.init(PARAMS)
    wrong = adam._replace(mu=adam.mu | {"a": jnp.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"^scale_by_adam: at \['a'\]: "):
        tx.update(GRADS, (scaled, wrong, rest), PARAMS)


def test_rules_that_close_over_functions_are_traced_once_in_a_run():
    ran = []

    @gt.transformation
    def mapped(function):
        def update(g, slots, p, t):
            ran.append(g.shape)
            return function(g), g

        return gt.per_parameter(jnp.zeros_like, update, Remembered)

    tx = gt.chain(gt.scale(2.0), mapped(lambda g: g + 1), mapped(lambda g: 3 * g))
    state = tx.init(PARAMS)
    for _ in range(3):
        u, state = tx.update(GRADS, state)
    assert sorted(ran) == [(2, 3), (2, 3), (3,), (3,)]
    np.testing.assert_allclose(u["b"]["c"], 3 * (2 * GRADS["b"]["c"] + 1))
    np.testing.assert_allclose(state[2].kept["b"]["c"], 2 * GRADS["b"]["c"] + 1)


def test_slots_without_a_gradient_are_each_stage_s_own():
    tx = gt.chain(gt.trace(0.9), gt.trace(0.5), gt.scale(-1.0))
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    u, after = tx.update(GRADS | {"b": {"c": None}}, state, PARAMS)
    assert u["b"]["c"] is None
    for old, new in zip(state[:2], after[:2], strict=True):
        np.testing.assert_array_equal(old.trace["b"]["c"], new.trace["b"]["c"])
        assert np.any(old.trace["a"] != new.trace["a"])


@pytest.mark.parametrize("in_a_run", [False, True])
def test_a_state_made_with_another_mask_is_an_error(in_a_run: bool):
    def tx(mask):
        around = [gt.scale(2.0)] if in_a_run else []
        return gt.chain(*around, gt.masked(gt.trace(0.9), mask), *around)

    on_b = {"a": False, "b": True, "none": False}
    lack = r"^trace: the trees do not match: the gradients have \['b'\]\['c'\], which the state's trees lack"
    with pytest.raises(ValueError, match=lack):
        tx(on_b).update(GRADS, tx(ON_A).init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"^trace: the trees do not match"):
        tx(ON_A).update(GRADS, tx(True).init(PARAMS), PARAMS)
    if in_a_run:
        wrong = (gt.states.EmptyState(),) * 3
        with pytest.raises(TypeError, match=r"^masked: state must be the MaskedState"):
            tx(ON_A).update(GRADS, wrong, PARAMS)
