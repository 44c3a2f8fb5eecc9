# SPDX-License-Identifier: Apache-2.0
"""A transformation is its constructor call: printing, comparing, hashing, flattening, tracing."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import adam, chain, clip_by_global_norm, scale_by_adam, scale_by_lr
from support.public import NAMES

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


def gradient(params):
    return jax.tree.map(lambda p: 2 * p + 1, params)


def train(tx, steps=5):
    def body(carry, _):
        params, state = carry
        updates, state = tx.update(gradient(params), state, params)
        return (gradtx.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (PARAMS, tx.init(PARAMS)), None, length=steps)[0][0]


VALUES = [
    (adam(1e-3), "adam(0.001)"),
    (adam(1e-3, b1=0.95, nesterov=True), "adam(0.001, b1=0.95, nesterov=True)"),
    (adam(1e-3, mu_dtype=jnp.bfloat16), "adam(0.001, mu_dtype='bfloat16')"),
    (chain(clip_by_global_norm(1.0), adam(1e-3)), "chain(clip_by_global_norm(1.0), adam(0.001))"),
    (gradtx.named_chain(("a", gradtx.identity())), "named_chain(('a', identity()))"),
    (scale_by_lr(0.1, flip_sign=False), "scale_by_lr(learning_rate=0.1, flip_sign=False)"),
    (gradtx.adamw(0.1, mask={"w": True, "b": False}), "adamw(0.1, mask={'b': False, 'w': True})"),
]


@pytest.mark.parametrize(("tx", "text"), VALUES, ids=[t for _, t in VALUES])
def test_repr_is_a_call_that_rebuilds_it(tx, text):
    assert repr(tx) == text
    again = eval(text, dict(NAMES))
    assert again == tx and hash(again) == hash(tx)


@pytest.mark.parametrize(("tx", "text"), VALUES, ids=[t for _, t in VALUES])
def test_copies_are_equal(tx, text):
    leaves, treedef = jax.tree.flatten(tx)
    for other in (pickle.loads(pickle.dumps(tx)), copy.deepcopy(tx), jax.tree.unflatten(treedef, leaves)):
        assert other == tx and hash(other) == hash(tx)


def test_values_differ_by_arguments_and_their_types():
    values = [adam(1e-3), adam(1e-2), adam(1e-3, 0.8), adam(jnp.float32(1e-3)), gradtx.nadam(1e-3), adam(1)]
    assert len(set(values)) == len(values)
    assert adam(1e-3) != "adam(0.001)"
    assert adam(jnp.float32(1e-3)) == adam(jnp.float32(1e-3))
    assert adam(1e-3) == adam(learning_rate=1e-3, b1=0.9)


def test_leaves_are_the_numeric_hyperparameters():
    assert jax.tree.leaves(adam(1e-3, b1=0.8)) == [1e-3, 0.8, 0.999, 1e-8, 0.0]
    assert jax.tree.leaves(chain(gradtx.scale(2.0), gradtx.sgd(0.1, momentum=0.5))) == [2.0, 0.1, 0.5]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(chain(gradtx.scale(2.0)))]
    assert paths == [".transformations.step_size"]


def test_random_keys_are_compared_by_their_bits():
    txs = [gradtx.add_noise(0.1, 0.5, jax.random.key(seed)) for seed in (0, 0, 1)]
    assert txs[0] == txs[1] != txs[2] and hash(txs[0]) == hash(txs[1])


def test_arrays_among_the_arguments_are_copied_at_the_call():
    rate, levels, boundaries = np.array(0.1), [np.array(0.1), np.array(0.2)], np.array([3])
    rules = [("w", {"learning_rate": rate})]
    makers = (
        lambda: gradtx.sgd(rate),
        lambda: gradtx.sgd(np.broadcast_to(rate, ())),
        lambda: gradtx.piecewise_values_schedule(boundaries, levels),
        lambda: gradtx.groups(rules, gradtx.sgd(1.0)),
        lambda: gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=rate),
        lambda: gradtx.inject_hyperparams(gradtx.sgd)(rate),
    )
    values, others, texts = [make() for make in makers], [make() for make in makers], [repr(make()) for make in makers]
    rate[...], levels[0][...], boundaries[...] = 5.0, 5.0, 9
    assert [repr(value) for value in values] == texts
    assert values == others and list(map(hash, values)) == list(map(hash, others))
    np.testing.assert_allclose(values[0].update(PARAMS, values[0].init(PARAMS))[0]["w"], -0.1 * PARAMS["w"])
    np.testing.assert_allclose(values[4].update(PARAMS, values[4].init(PARAMS))[0]["w"], -0.1 * PARAMS["w"])
    with pytest.raises(ValueError, match="read-only"):
        values[0].arguments["learning_rate"][...] = 5.0


def test_immutable():
    tx = adam(1e-3)
    with pytest.raises(AttributeError, match="immutable"):
        tx.learning_rate = 1e-2
    assert tx.replace(learning_rate=1e-2) == adam(1e-2)
    with pytest.raises(TypeError, match="no argument lr"):
        tx.replace(lr=1e-2)


def test_an_argument_of_the_only_stage_that_has_it():
    tx = gradtx.chain(gradtx.clip(1.0), adam(1e-3))
    assert tx.replace(learning_rate=0.1, b1=0.8) == gradtx.chain(gradtx.clip(1.0), adam(0.1, b1=0.8))
    named = gradtx.named_chain(("clip", gradtx.clip(1.0)), ("adam", adam(1e-3)))
    assert named.replace(max_delta=2.0).arguments["transformations"][0] == ("clip", gradtx.clip(2.0))
    wrapped = gradtx.lookahead(tx, 2, 0.5)
    assert wrapped.replace(learning_rate=0.1, sync_period=3) == gradtx.lookahead(tx.replace(learning_rate=0.1), 3, 0.5)
    two = gradtx.chain(adam(1e-3), gradtx.sgd(0.1))
    with pytest.raises(TypeError, match="no argument learning_rate; which of '0.learning_rate', '1.learning_rate'"):
        two.replace(learning_rate=1.0)
    assert two.replace(**{"1.learning_rate": 1.0}) == gradtx.chain(adam(1e-3), gradtx.sgd(1.0))
    with pytest.raises(TypeError, match="chain: no argument lr; there are max_delta, learning_rate"):
        tx.replace(lr=1.0)


def test_is_a_pair():
    tx = adam(1e-3)
    init, update = tx
    assert (init, update) == (tx[0], tx[1]) and len(tx) == 2
    assert tx.init is tx.init and tx.update is tx.update
    assert type(tx.init).__name__ == type(tx.update).__name__ == "function"


def test_whatever_is_asked_first_is_answered():
    assert scale_by_adam().rule.state is gradtx.states.ScaleByAdamState and adam(1e-3).rule is None
    assert scale_by_adam().declared == () and adam(1e-3).declared is None
    assert scale_by_adam().gathers is adam(1e-3).gathers is False
    assert callable(adam(1e-3).init) and callable(adam(1e-3).update)
    assert adam(1e-3).expanded == chain(scale_by_adam(), scale_by_lr(1e-3))


def test_made_by_hand_from_any_two_functions():
    def init(params):
        return ()

    def update(updates, state, params=None):
        return jax.tree.map(jnp.negative, updates), state

    tx = gradtx.GradientTransformation(init, update)
    assert tx == gradtx.GradientTransformation(init, update) and tx != gradtx.GradientTransformation(init, init)
    assert jax.tree.leaves(tx) == [] and jax.tree.map(lambda x: x, tx) == tx
    assert "update" in repr(tx) and tx.factory is None
    moved = train(chain(tx, gradtx.scale(0.1)))
    np.testing.assert_array_equal(moved["b"], train(gradtx.sgd(0.1))["b"])


def test_as_a_jit_argument_three_rates_trace_once():
    traces = []

    @jax.jit
    def step(tx, params):
        traces.append(1)
        return tx.update(gradient(params), tx.init(params), params)[0]

    for rate in (1e-3, 1e-2, 1e-1):
        updates = step(adam(rate), PARAMS)
        np.testing.assert_allclose(updates["b"], -rate, rtol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("inside", ["a branch", "a traced init"])
def test_as_a_jit_argument_where_it_is_first_used_further_inside(inside: str):
    """What bodies compute of the numbers belongs to the program, not to the branch in which a stage is first used."""
    base, params = gradtx.sgd(0.1, momentum=0.9), {"a": jnp.ones(3), "b": jnp.ones(3)}
    tx = gradtx.sam(base, gradtx.chain(gradtx.normalize(), gradtx.sgd(0.1)))
    if inside == "a traced init":
        stages = gradtx.chain(gradtx.trace(0.9), gradtx.scale_by_lr(0.1))
        roles = [("a", gradtx.Role("bias")), ("b", gradtx.Role("norm"))]
        tx = gradtx.with_roles(roles, gradtx.groups([(gradtx.of_kind("bias"), stages)], gradtx.adam(0.1)))
    state = tx.init(params)
    updates, _ = jax.jit(lambda tx, g, state: tx.update(g, state, params))(tx, params, state)
    expected, _ = jax.jit(lambda g, state: tx.update(g, state, params))(params, state)
    jax.tree.map(lambda u, e: np.testing.assert_allclose(u, e, rtol=1e-6), updates, expected)


def test_as_a_static_argument_equal_optimizers_trace_once():
    traces = []

    def step(tx, params):
        traces.append(1)
        return tx.update(gradient(params), tx.init(params), params)[0]

    step = jax.jit(step, static_argnums=0)
    step(adam(1e-3), PARAMS), step(adam(1e-3), PARAMS)
    assert len(traces) == 1
    step(adam(1e-2), PARAMS)
    assert len(traces) == 2


def test_vmap_over_learning_rates_equals_the_loop():
    rates = [1e-3, 1e-2, 1e-1]
    stacked = jax.tree.map(lambda *xs: jnp.array(xs), *[adam(r) for r in rates])
    together = jax.vmap(train)(stacked)
    for i, rate in enumerate(rates):
        alone = train(adam(rate))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6), together, alone)


def test_vmap_with_axes_given_by_a_transformation():
    txs = adam(jnp.array([0.1, 0.2]))
    axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, txs)
    together = jax.vmap(train, in_axes=(axes,))(txs)
    np.testing.assert_allclose(together["b"][1], train(adam(0.2))["b"], rtol=1e-5)


def test_a_population_without_vmap_is_an_error():
    with pytest.raises(ValueError, match="step_size must be a scalar at each step, got shape \\(2,\\).*vmap"):
        adam(jnp.array([0.1, 0.2])).update(PARAMS, adam(0.1).init(PARAMS))


def test_a_population_is_a_value_too():
    """So a vector is no bad argument of a factory: what is stacked prints, is saved and is changed as a call."""
    population = jax.tree.map(lambda *rates: jnp.stack(rates), adam(0.1), adam(0.2))
    assert gradtx.from_string(repr(population)) == population == pickle.loads(pickle.dumps(population))
    assert gradtx.from_dict(gradtx.to_dict(population)) == population
    replaced = population.replace(nesterov=True)
    together = jax.vmap(train)(replaced)
    np.testing.assert_allclose(together["b"][1], train(adam(0.2, nesterov=True))["b"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learning_rate", "b1", "b2", "eps", "eps_root"])
@pytest.mark.parametrize("g", [0.0, 1.0])
def test_hypergradients_are_finite_also_at_zero_gradient(name, g):
    grads = jax.tree.map(lambda p: jnp.full_like(p, g), PARAMS)

    def moved(tx):
        state = tx.init(PARAMS)
        for _ in range(3):
            updates, state = tx.update(grads, state, PARAMS)
        return sum(jnp.sum(u) for u in jax.tree.leaves(updates))

    derivative = jax.grad(moved)(adam(0.1)).arguments[name]
    assert np.isfinite(derivative)
    if g and name == "learning_rate":
        np.testing.assert_allclose(derivative, -9, rtol=1e-4)


def test_derivative_through_the_gradient_is_finite_at_zero():
    tx = adam(0.1)
    derivative = jax.grad(lambda g: jnp.sum(tx.update(g, tx.init(g))[0]))(jnp.zeros(3))
    assert np.all(np.isfinite(derivative))


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.stored(adam(gradtx.linear_schedule(0.1, 0.01, 10)), gradtx.precision.bfloat16(), min_size=0),
        gradtx.stored(
            gradtx.with_master_params(adam(0.1), gradtx.compensate()), gradtx.precision.bfloat16(), min_size=0
        ),
        gradtx.with_roles([("**", gradtx.Role())], chain(adam(gradtx.linear_schedule(0.1, 0.01, 10)))),
    ],
    ids=["a schedule", "a recipe in a wrapper", "roles"],
)
def test_what_a_wrapper_traces_first_keeps_no_tracers(tx):
    """It traces `init` for the shapes of the state, where transformations inside are used for the first time."""
    wanted = train(tx)
    for traced in (jax.jit(train), jax.jit(jax.checkpoint(train))):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), traced(tx), wanted)
    leaves, treedef = jax.tree.flatten(tx)

    def loss(rate):
        return sum(jnp.sum(p) for p in jax.tree.leaves(train(treedef.unflatten([rate, *leaves[1:]]))))

    assert np.isfinite(jax.grad(loss)(jnp.float32(leaves[0])))


def test_constants_are_folded_in_double_precision():
    # (1 - 0.999) in float32 arithmetic is off by 1.3e-5 relative
    _, state = scale_by_adam().update(jnp.ones(1), scale_by_adam().init(jnp.ones(1)))
    np.testing.assert_allclose(state.nu, np.float32(1 - 0.999), rtol=1e-7)
    updates, _ = scale_by_adam(eps=0.0).update(jnp.ones(1), scale_by_adam().init(jnp.ones(1)))
    np.testing.assert_allclose(updates, 1.0, rtol=3e-7)


def test_equal_transformations_share_compiled_rules():
    traces = []

    @gradtx.transformation
    def counting(factor: gradtx.typing.Real):
        def update(g, slots, p, t):
            traces.append(g.shape)
            return factor * g, slots

        return gradtx.per_parameter(None, update)

    grads = {"a": jnp.ones(3), "b": jnp.ones(3), "c": jnp.ones(4)}
    for _ in range(2):
        counting(2.0).update(grads, counting(2.0).init(grads))
    assert sorted(traces) == [(3,), (4,)]
    counting(3.0).update(grads, counting(3.0).init(grads))
    assert len(traces) == 4


def test_extra_arguments_reach_the_stages_that_take_them():
    seen = {}

    def takes_value(updates, state, params=None, *, value):
        seen["value"] = value
        return updates, state

    def takes_all(updates, state, params=None, **extra):
        seen["all"] = sorted(extra)
        return updates, state

    hand = gradtx.GradientTransformation(lambda params: (), takes_value)
    every = gradtx.GradientTransformationExtraArgs(lambda params: (), takes_all)
    tx = chain(adam(0.1), hand, every)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=3.0, grad=PARAMS)
    assert seen == {"value": 3.0, "all": ["grad", "value"]}


@pytest.mark.filterwarnings("ignore:The chararray class:DeprecationWarning")  # of NumPy, in treescope
def test_in_a_notebook_a_value_is_its_call():
    treescope = pytest.importorskip("treescope")
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(gradtx.linear_schedule(0.1, 0.0, 10), b1=0.8))
    text = treescope.render_to_text(tx)
    assert "".join(text.split()).replace(",)", ")") == "".join(repr(tx).split())
    by_hand = gradtx.GradientTransformation(lambda params: (), lambda updates, state, params=None: (updates, state))
    assert "GradientTransformation" in treescope.render_to_text(by_hand)
