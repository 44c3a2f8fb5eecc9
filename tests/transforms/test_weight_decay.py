# SPDX-License-Identifier: Apache-2.0
"""Weight decay of each kind next to any recipe, and what the kinds have to do with each other."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.formulas import deviation, run_rule

RECIPES = {
    "sgd": lambda rate: gt.sgd(rate, momentum=0.9),
    "adam": gt.adam,
    "rmsprop": gt.rmsprop,
    "adopt": gt.adopt,
    "laprop": gt.laprop,
    "aggmo": gt.aggmo,
    "mars": gt.mars,
}
each_recipe = pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
P = {"w": jnp.array([[1.0, -2.0], [3.0, -4.0]]), "b": jnp.array([0.5, -0.5])}
G = {"w": jnp.array([[1.0, 1.0], [-1.0, -1.0]]), "b": jnp.array([-1.0, 2.0])}
LAMBDA, RATE, PEAK = 0.1, 0.03, 0.06


def rate(count):
    return jnp.where(count == 0, RATE, PEAK).astype(jnp.result_type(float))


def matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


def added(make, of_recipe, **options):
    """What the decay adds to the updates of a recipe, at the first step and at the second."""
    found = []
    recipe = make(of_recipe)
    with_decay = gt.chain(recipe, gt.decay_weights(LAMBDA, **options))
    plain, state = recipe.init(P), with_decay.init(P)
    for scale in (1.0, 2.0):
        g = jax.tree.map(lambda g, scale=scale: scale * g, G)
        u, plain = recipe.update(g, plain, P)
        v, state = with_decay.update(g, state, P)
        found.append((u, jax.tree.map(lambda a, b: np.asarray(b - a), u, v)))
    return found


@each_recipe
def test_independent(make):
    for _, d in added(make, rate):
        jax.tree.map(lambda d, p: np.testing.assert_allclose(d, -LAMBDA * p, atol=1e-6), d, P)


@each_recipe
def test_decoupled_follows_the_learning_rate(make):
    for (_, d), eta in zip(added(make, rate, kind="decoupled", learning_rate=rate), (RATE, PEAK), strict=True):
        jax.tree.map(lambda d, p, eta=eta: np.testing.assert_allclose(d, -LAMBDA * eta * p, atol=1e-6), d, P)


@each_recipe
def test_corrected_follows_its_square(make):
    options = dict(kind="corrected", learning_rate=rate, max_learning_rate=PEAK)
    for (_, d), eta in zip(added(make, rate, **options), (RATE, PEAK), strict=True):
        jax.tree.map(lambda d, p, eta=eta: np.testing.assert_allclose(d, -LAMBDA * eta**2 / PEAK * p, atol=1e-6), d, P)


@each_recipe
def test_cautious_decays_only_what_the_update_shrinks(make):
    for u, d in added(make, rate, cautious=True):
        for name, p in P.items():
            expected = np.where(u[name] * p <= 0, -LAMBDA * p, 0.0)
            np.testing.assert_allclose(d[name], expected, atol=1e-6)


@each_recipe
def test_towards_the_start_does_nothing_at_the_start(make):
    for _, d in added(make, rate, towards_initial=True):
        jax.tree.map(lambda d: np.testing.assert_array_equal(d, 0), d)


@each_recipe
def test_a_mask_chooses_where(make):
    for _, d in added(make, rate, mask=matrices):
        np.testing.assert_allclose(d["w"], -LAMBDA * P["w"], atol=1e-6)
        np.testing.assert_array_equal(d["b"], 0)


@pytest.mark.slow
@each_recipe
def test_coupled_is_a_penalty_on_the_loss(make):
    tx, recipe = gt.chain(gt.decay_weights(LAMBDA, "coupled"), make(RATE)), make(RATE)
    u, _ = tx.update(G, tx.init(P), P)
    v, _ = recipe.update(jax.tree.map(lambda g, p: g + LAMBDA * p, G, P), recipe.init(P), P)
    chex.assert_trees_all_close(u, v, rtol=1e-6)


@pytest.mark.slow
def test_decoupled_is_what_adamw_does(x64):
    ours = gt.chain(gt.adam(rate), gt.decay_weights(0.1, "decoupled", learning_rate=rate))
    assert deviation(run_rule(ours), run_rule(gt.adamw(rate, weight_decay=0.1))) < 1e-13


@pytest.mark.slow
def test_coupled_is_add_decayed_weights(x64):
    rows = (gt.decay_weights(0.1, "coupled"), gt.add_decayed_weights(0.1))
    assert deviation(*(run_rule(gt.chain(tx, gt.rmsprop(0.01))) for tx in rows)) == 0


@pytest.mark.slow
def test_cautious_decoupled_decay_inside_a_chain_is_the_same_as_after_it(x64):
    """The paper's form decays the direction; the stage sees the step, whose sign is the opposite."""

    def inside(u, p):
        return u + 0.1 * p * (u * p >= 0).astype(p.dtype)

    chained = gt.chain(gt.scale_by_adam(), gt.stateless_with_tree_map(inside), gt.scale_by_lr(0.03))
    after = gt.chain(gt.adam(0.03), gt.decay_weights(0.1, "decoupled", learning_rate=0.03, cautious=True))
    assert deviation(run_rule(chained), run_rule(after)) < 1e-13


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_the_start_is_remembered_in_float32(dtype):
    p = jax.tree.map(lambda x: x.astype(dtype), P)
    tx = gt.decay_weights(0.1, towards_initial=True)
    state = tx.init(p)
    assert {x.dtype for x in jax.tree.leaves(state.initial)} == {np.dtype("float32")}
    moved = jax.tree.map(lambda x: x + 1, p)
    u, _ = tx.update(jax.tree.map(jnp.zeros_like, p), state, moved)
    jax.tree.map(lambda u: np.testing.assert_array_equal(u, jnp.asarray(-0.1, dtype)), u)


def test_complex_parameters_decay_where_the_update_shrinks_them():
    p = jnp.array([1 + 1j, 1 + 1j])
    u, _ = gt.decay_weights(0.1, cautious=True).update(jnp.array([-1 - 1j, 1 + 1j]), gt.states.EmptyState(), p)
    np.testing.assert_allclose(u, [-1.1 - 1.1j, 1 + 1j], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(kind="decoupled"), "kind='decoupled' needs a learning_rate"),
        (dict(kind="corrected"), "kind='corrected' needs a learning_rate"),
        (dict(learning_rate=0.1), "kind='independent' takes no learning_rate, got 0.1"),
        (dict(kind="coupled", learning_rate=0.1), "kind='coupled' takes no learning_rate"),
        (dict(kind="corrected", learning_rate=rate), "needs max_learning_rate"),
        (dict(kind="decoupled", learning_rate=0.1, max_learning_rate=0.2), "takes no max_learning_rate"),
        (dict(kind="coupled", cautious=True), "comes before it"),
        (dict(kind="l2"), "kind must be one of"),
        (dict(weight_decay=-0.1), "weight_decay must be"),
    ],
)
def test_options_that_have_no_meaning_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        gt.decay_weights(**{"weight_decay": 0.1, **arguments})
