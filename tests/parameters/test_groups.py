# SPDX-License-Identifier: Apache-2.0
"""Groups do what optimizers of their own would do, at the price of one; rules that contradict each other are errors."""

import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx import Role
from gradtx.core._ranges import is_number
from support import registry

SHAPES = {"w": (4, 3), "v": (4, 3), "b": (3,)}


def draw(seed, dtype=jnp.float32):
    draws = np.random.default_rng(seed)
    return {n: jnp.asarray(draws.normal(size=shape), dtype) for n, shape in SHAPES.items()}


PARAMS, GRADIENTS = draw(0), draw(1)


def step(tx, gradients=GRADIENTS, params=PARAMS, **extra):
    return tx.update(gradients, tx.init(params), params, **extra)


def rates(tx, gradients=GRADIENTS, params=PARAMS):
    """By what the first update of each parameter is its negative gradient; it should be one number."""
    found = {}
    for n, u in step(tx, gradients, params)[0].items():
        ratio = np.asarray(-u / gradients[n])
        np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-5)
        found[n] = float(ratio.flat[0])
    return found


def rate_of(updates, gradients, n):
    return float(jnp.ravel(updates[n] / gradients[n])[0])


def assert_same(found, expected, rtol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), found, expected)


# The law: for every rule and every hyperparameter.

# A weight decay before the estimate of a distance changes the estimate, which is of all parameters.
COUPLED = {("dadapt_sgd", "weight_decay")}


@functools.cache
def other_numbers(name: str) -> dict[str, float]:
    """Other values, drawn at random, of the hyperparameters of a factory that may differ between groups."""
    tx, draws, found = registry.example(name), np.random.default_rng(len(name)), {}
    for h in registry.FACTORIES[name].hyperparameters:
        value, spec = tx.arguments[h], registry.FACTORIES[name].specs[h]
        if not is_number(value) or (name, h) in COUPLED:
            continue
        other = (value or spec.example) * draws.uniform(0.5, 0.95)
        other = other if spec.holds(other) else value + draws.uniform(0.1, 1.0)
        other = value + 1 if isinstance(value, int) and spec.holds(value + 1) else other
        try:
            jax.eval_shape(gt.groups([("w", {h: other})], tx).init, PARAMS)
        except ValueError as error:
            assert re.search("cannot differ between groups|has no effect on the parameters", str(error)), str(error)
        else:
            found[h] = other
    return found


# One that is `groups` itself is left out.
WITH_NUMBERS = [n for n in registry.COVERED if any(map(is_number, registry.example(n).arguments.values()))]
WITH_NUMBERS.remove("vit_finetuning")


def updates_of(tx, name, dtype):
    """Of some steps, at the same parameters, so that what is in a group moves nothing for the others."""

    def body(state, gradients):
        extra = registry.extra_arguments(name) | {"grad": gradients}
        if "sum_sq_diff_grads" in extra:
            extra["sum_sq_diff_grads"] = jax.tree.map(jnp.square, gradients)
        updates, state = tx.update(gradients, state, params, **extra)
        return state, updates

    params = draw(0, dtype)
    gradients = jax.tree.map(lambda *xs: jnp.stack(xs), *(draw(seed, dtype) for seed in (1, 2, 3)))
    return jax.lax.scan(body, tx.init(params), gradients)[1]


def assert_groups_equal_separate_optimizers(name, dtype, tolerance):
    tx, others = registry.example(name), other_numbers(name)
    found = updates_of(gt.groups([("w", others)], tx), name, dtype)
    expected = {**updates_of(tx, name, dtype), "w": updates_of(tx.replace(**others), name, dtype)["w"]}
    for n, want in expected.items():
        size = float(np.max(np.abs(want), initial=0))
        np.testing.assert_allclose(found[n], want, rtol=tolerance, atol=tolerance * size, err_msg=n)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_groups_equal_separate_optimizers(name):
    if not other_numbers(name):
        pytest.skip("all its numbers are of the whole tree")
    assert_groups_equal_separate_optimizers(name, jnp.float32, 2e-6)


EXACT = ("adam", "adamw", "lamb", "lion", "adafactor", "rmsprop", "sgd", "came", "clip_by_global_norm", "muon")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_groups_equal_separate_optimizers_in_float64(name, x64):
    assert_groups_equal_separate_optimizers(name, jnp.float64, 1e-10)


def test_what_may_differ():
    """A number of every rule on single parameters may; that of a stage that works on the whole tree may not."""
    assert all(other_numbers(name) for name in EXACT)
    everything = {"learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay"}
    assert set(other_numbers("adamw")) == everything
    assert not other_numbers("mechanize").keys() & {"eps", "s_init"}


@pytest.mark.parametrize("b2", [0.999, 0.9999])
def test_decays_near_one_lose_nothing(b2):
    """1 - 0.999 is off by 5e-5 in float32, as an array it would be."""
    base = gt.scale_by_rms(0.99, eps=0.0)
    found = gt.groups([("w", {"decay": b2})], base)
    expected = np.sqrt(1 / (1 - b2))
    updates, _ = step(found)
    np.testing.assert_allclose(np.abs(updates["w"]), expected, rtol=1e-6)
    np.testing.assert_allclose(np.abs(updates["v"]), 10.0, rtol=1e-6)


# What a rule may say.


def test_numbers_multiples_and_schedules():
    rules = [
        ("w", {"learning_rate": gt.times(0.5)}),
        ("v", {"learning_rate": 0.25}),
        ("b", {"learning_rate": 4.0 * gt.schedules.linear(4)}),
    ]
    tx = gt.groups(rules, gt.sgd(8.0))
    assert rates(tx) == pytest.approx({"w": 4.0, "v": 0.25, "b": 4.0})
    _, state = step(tx)
    updates, state = tx.update(GRADIENTS, state, PARAMS)
    np.testing.assert_allclose(updates["b"], -3 * GRADIENTS["b"], rtol=1e-6)
    updates, _ = tx.update(GRADIENTS, gt.restart(state, 2), PARAMS)
    np.testing.assert_allclose(updates["b"], -2 * GRADIENTS["b"], rtol=1e-6)
    np.testing.assert_allclose(updates["w"], -4 * GRADIENTS["w"], rtol=1e-6)


def test_multiples_of_a_schedule_and_metrics():
    tx = gt.groups([("w", {"learning_rate": gt.times(0.5)})], gt.sgd(gt.schedules.linear(4)))
    _, state = step(tx)
    updates, state = tx.update(GRADIENTS, state, PARAMS)
    np.testing.assert_allclose(updates["w"], -0.375 * GRADIENTS["w"], rtol=1e-6)
    np.testing.assert_allclose(updates["v"], -0.75 * GRADIENTS["v"], rtol=1e-6)
    assert {n: float(x) for n, x in gt.metrics(state, tx).items()} == {"learning_rate": 0.75}


def test_arrays_and_traced_numbers():
    def run(rate, other):
        return step(gt.groups([("w", {"learning_rate": other})], gt.sgd(rate)))[0]

    for call in (run, jax.jit(run)):
        found = call(jnp.asarray(0.5), jnp.asarray(2.0))
        assert_same(found, {n: (-2.0 if n == "w" else -0.5) * g for n, g in GRADIENTS.items()})
    slope = jax.grad(lambda other: jnp.sum(run(1.0, other)["w"]))(2.0)
    np.testing.assert_allclose(slope, -jnp.sum(GRADIENTS["w"]), rtol=1e-5)


def test_rules_are_combined():
    rules = [
        (("w", "b"), {"learning_rate": gt.times(0.5)}),
        (("w", "v"), {"weight_decay": 0.0}),
    ]
    tx = gt.groups(rules, gt.adamw(0.1, weight_decay=0.5))
    updates, _ = step(tx)
    for n, rate, decay in (("w", 0.05, 0.0), ("v", 0.1, 0.0), ("b", 0.05, 0.5)):
        expected, _ = step(gt.adamw(rate, weight_decay=decay))
        assert_same(updates[n], expected[n])


def test_frozen_parameters_have_nothing():
    tx = gt.groups([("w", "frozen")], gt.chain(gt.clip_by_global_norm(1.0), gt.adam(0.1)))
    rest = {n: PARAMS[n] for n in "vb"}
    state = tx.init(PARAMS)
    inner = gt.chain(gt.clip_by_global_norm(1.0), gt.adam(0.1))
    assert sum(x.size for x in jax.tree.leaves(state)) == sum(x.size for x in jax.tree.leaves(inner.init(rest)))
    updates, _ = tx.update(GRADIENTS, state, PARAMS)
    assert updates["w"] is None
    expected, _ = step(inner, {n: GRADIENTS[n] for n in "vb"}, rest)
    assert_same({n: updates[n] for n in "vb"}, expected)
    new = gt.apply_updates(PARAMS, updates)
    np.testing.assert_array_equal(new["w"], PARAMS["w"])
    assert not np.array_equal(new["v"], PARAMS["v"])


def test_other_rules():
    tx = gt.groups([("w", gt.lion(0.1)), ("b", optax.sgd(0.5))], gt.adam(0.2))
    updates, state = step(tx)
    for n, inner in (("w", gt.lion(0.1)), ("b", gt.sgd(0.5)), ("v", gt.adam(0.2))):
        assert_same(updates[n], step(inner, {n: GRADIENTS[n]}, {n: PARAMS[n]})[0][n])
    assert set(state.inner_states) == {"base", "rule 0", "rule 1"}
    assert gt.needs(gt.groups([("w", gt.polyak_sgd())], gt.adam(0.2))) == {"value"}


def test_options_that_are_no_numbers():
    tx = gt.groups([("w", {"nesterov": True, "learning_rate": 0.3}), ("b", {"learning_rate": 0.4})], gt.adam(0.2))
    updates, state = step(tx)
    for n, inner in (("w", gt.adam(0.3, nesterov=True)), ("b", gt.adam(0.4)), ("v", gt.adam(0.2))):
        assert_same(updates[n], step(inner, {n: GRADIENTS[n]}, {n: PARAMS[n]})[0][n])
    assert set(state.inner_states) == {"base", "rule 0"}


@pytest.mark.parametrize(("base", "value"), [(None, 0.9), (0.9, None)])
def test_none_and_numbers(base, value):
    """With a momentum there is a state, without it there is none: that is an optimizer of its own."""
    tx = gt.groups([("w", {"momentum": value}), ("b", {"learning_rate": 2.0})], gt.sgd(1.0, momentum=base))
    _, state = step(tx)
    updates, _ = tx.update(GRADIENTS, state, PARAMS)
    for n, momentum in (("w", value), ("v", base)):
        expected = -(1 + (momentum or 0)) * GRADIENTS[n]
        np.testing.assert_allclose(updates[n], expected, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -2 * (1 + (base or 0)) * GRADIENTS["b"], rtol=1e-6)


def test_a_base_without_parameters():
    for tx in (
        gt.groups([(("w", "b"), {"nesterov": True, "learning_rate": 0.1}), ("v", "frozen")], gt.adam(0.2)),
        gt.groups([("w", {"learning_rate": 0.1}), (("v", "b"), gt.sgd(1.0))], gt.adam(0.2)),
    ):
        updates, _ = step(tx)
        assert_same(updates["w"], step(gt.adam(0.1, nesterov=updates["v"] is None))[0]["w"])


def test_metrics_of_other_rules():
    tx = gt.groups([("w", {"nesterov": True}), ("b", gt.sgd(gt.schedules.linear(2)))], gt.adam(gt.schedules.linear(4)))
    _, state = step(tx)
    assert set(gt.metrics(state, tx)) == {f"{group}.learning_rate" for group in ("base", "rule 0", "rule 1")}


MATRICES = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}


def largest(tx, params=MATRICES):
    """The largest element of each update, for gradients that all rules scale to the same size."""
    updates, _ = tx.update(params, tx.init(params), params)
    return jax.tree.map(lambda u: float(jnp.max(jnp.abs(u))), updates)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [gt.muon, functools.partial(gt.muon8bit, min_size=4)])
def test_a_multiple_of_the_rate_is_one_of_both_rates(recipe):
    base = recipe(0.1, adam_learning_rate=0.01)
    plain = largest(base)
    for chosen, half in (("b", {"b"}), ("w", {"w"}), ("**", {"w", "b"})):
        found = largest(gt.groups([(chosen, {"learning_rate": gt.times(0.5)})], base))
        assert found == pytest.approx({n: x * (0.5 if n in half else 1) for n, x in plain.items()})
    # What a rule says of the other rate counts, in the same rule or in another.
    rules = [("**", {"learning_rate": gt.times(0.5), "adam_learning_rate": gt.times(0.1)})]
    assert largest(gt.groups(rules, base)) == pytest.approx({"w": plain["w"] / 2, "b": plain["b"] / 10})
    rules = [("**", {"learning_rate": gt.times(0.5)}), ("b", {"adam_learning_rate": 0.002})]
    assert largest(gt.groups(rules, base)) == pytest.approx({"w": plain["w"] / 2, "b": plain["b"] / 5})
    # Without a second rate the first is that of all.
    one = largest(gt.groups([("b", {"learning_rate": gt.times(0.5)})], recipe(0.1)))
    assert one["b"] == pytest.approx(largest(recipe(0.1))["b"] / 2)


def test_layerwise_decay_is_one_of_both_rates():
    params = {f"h_{i}": {"w": jnp.ones((4, 3)), "b": jnp.ones(3)} for i in range(2)}
    base = gt.muon(0.1, adam_learning_rate=0.01)
    found = largest(gt.groups([("**", {"learning_rate": gt.layerwise_decay(0.5)})], base), params)
    for i, factor in ((0, 0.25), (1, 0.5)):
        assert found[f"h_{i}"] == pytest.approx({n: factor * x for n, x in largest(base, params)[f"h_{i}"].items()})


@pytest.mark.parametrize(
    ("rule", "base", "message"),
    [
        (("b", {"learning_rate": 0.5}), gt.muon(0.1, adam_learning_rate=0.01), r"b: no .* there is adam_learning_rate"),
        (("w", {"adam_b1": 0.5}), gt.muon(0.1), r"groups: rule 0 \('w'\): adam_b1 has no effect on .* chooses, w: no"),
        (("b", {"weight_decay": 0.5}), gt.adamw(0.1, mask={"w": True, "b": False}), "weight_decay has no effect"),
        (("b", {"nesterov": False, "weight_decay": 0.5}), gt.muon(0.1), "weight_decay has no effect"),
        (("b", {"1.inner.step_size": 2.0}), gt.chain(gt.identity(), gt.masked(gt.scale(1.0), gt.where("w"))), "no eff"),
        (
            ("w", {"transforms['b'].learning_rate": gt.times(0.5)}),
            gt.partition({"w": gt.sgd(0.1), "b": gt.adam(0.1)}, {"w": "w", "b": "b"}),
            "learning_rate has no effect on the parameters",
        ),
    ],
)
def test_a_number_that_reaches_nothing(rule, base, message):
    with pytest.raises(ValueError, match=message):
        gt.groups([rule], base).init(MATRICES)
    # It is one if a single parameter of the rule has it.
    gt.groups([("**", {n: x for n, x in rule[1].items() if n != "nesterov"})], base).init(MATRICES)


@pytest.mark.parametrize(
    ("rule", "base", "name"),
    [
        (("b", {"ns_steps": 3}), gt.muon(0.1), "ns_steps"),
        (("b", {"preconditioning": "schatten", "learning_rate": 0.2}), gt.chain(gt.clip(1.0), gt.muon(0.1)), "precond"),
        (("b", {"0.inner.nesterov": True}), gt.chain(gt.masked(gt.adam(0.1), gt.where("w")), gt.sgd(0.1)), "nesterov"),
        (("b", {"transforms['w'].nu_dtype": "bfloat16"}), gt.partition(
            {"w": gt.adam(0.1), "b": gt.adam(0.1)}, {"w": "w", "b": "b"}), "nu_dtype"),
    ],
)  # fmt: skip
def test_an_option_that_reaches_nothing(rule, base, name):
    with pytest.raises(ValueError, match=rf"groups: rule 0 \('b'\): {name}.* has no effect on .* chooses, b: no stage"):
        gt.groups([rule], base).init(MATRICES)
    gt.groups([("**", rule[1])], base).init(MATRICES)  # `w` has it
    gt.groups([("b", {n: gt.muon(0.1).arguments[n] for n in ("ns_steps", "preconditioning")})], gt.muon(0.1)).init(
        MATRICES
    )  # what is as before needs no effect


@pytest.mark.parametrize(
    ("option", "base"),
    [
        ({"nesterov": False}, gt.muon(0.1)),  # of both halves
        ({"should_skip_update_fn": None}, gt.MultiSteps(gt.adam(0.1), 2)),  # of no rule on parameters
        ({"mask": None}, gt.adamw(0.1, mask={"w": True, "b": False})),  # other rules
        ({"momentum": None}, gt.sgd(0.1, momentum=0.9)),
    ],
)
def test_an_option_that_reaches_something(option, base):
    gt.groups([("b", option)], base).init(MATRICES)


# How it is put together.


def test_where_the_number_is():
    base = gt.named_chain(("clip", gt.clip(1.0)), ("first", gt.sgd(1.0)), ("second", gt.sgd(2.0)))
    with pytest.raises(ValueError, match=r"more than one learning_rate: say which, 'first.learning_rate', 'second.l"):
        gt.groups([("w", {"learning_rate": 0.5})], base)
    tx = gt.groups([("w", {"second.learning_rate": 0.5, "max_delta": 10.0})], base)
    small = jax.tree.map(lambda g: 0.1 * g, GRADIENTS)
    found = {n: rate_of(step(tx, small)[0], small, n) for n in "wv"}
    assert found == pytest.approx({"w": 0.5, "v": 2.0})
    tx = gt.groups([("w", {"1.learning_rate": 0.5})], gt.chain(gt.sgd(1.0), gt.sgd(2.0)))
    assert rate_of(step(tx)[0], GRADIENTS, "w") == pytest.approx(0.5)


@pytest.mark.parametrize(
    "base",
    [
        gt.adam(0.1),
        gt.muon(0.1),
        gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(gt.schedules.linear(10))),
        gt.MultiSteps(gt.lamb(0.1), 2),
        gt.lookahead(gt.adam(0.1), 2, 0.5),
        gt.masked(gt.adam(0.1), {"w": True, "v": False, "b": True}),
    ],
    ids=["adam", "muon", "chain", "MultiSteps", "lookahead", "masked"],
)
def test_the_state_is_that_of_the_base(base):
    tx = gt.groups([("w", {"learning_rate": gt.times(0.5)})], base)
    state, plain = tx.init(PARAMS), base.init(PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(plain)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, plain)
    for _ in range(2):
        updates, state = tx.update(GRADIENTS, state, PARAMS)
        expected, plain = base.update(GRADIENTS, plain, PARAMS)
    assert_same({n: updates[n] for n in "vb"}, {n: expected[n] for n in "vb"})
    if base.factory.name != "lookahead":  # which moves between the parameters
        assert_same(updates["w"], jax.tree.map(lambda x: 0.5 * x, expected["w"]), 1e-5)


RULES = (("w", Role("hidden", 0, (), 1)), ("v", Role("hidden", in_axes=0, out_axes=1)), ("b", Role("bias")))


def test_inside_and_around_with_roles():
    rules = [("w", {"learning_rate": gt.times(0.5)})]
    inside = gt.with_roles(RULES, gt.groups(rules, gt.lamb(0.1)))
    around = gt.groups(rules, gt.with_roles(RULES, gt.lamb(0.1)))
    expected, _ = step(gt.with_roles(RULES, gt.lamb(0.1)))
    expected["w"] = 0.5 * expected["w"]
    assert_same(step(inside)[0], expected)
    assert_same(step(around)[0], expected)


def test_by_kind():
    tx = gt.with_roles(RULES, gt.groups([(gt.of_kind("bias"), {"learning_rate": 2.0})], gt.sgd(1.0)))
    assert rates(tx) == pytest.approx({"w": 1.0, "v": 1.0, "b": 2.0})
    base = gt.adamw(1.0, mask=~gt.where(gt.of_kind("bias")))
    for tx in (
        gt.groups([(gt.of_kind("bias"), {"learning_rate": 2.0})], gt.sgd(1.0)),
        gt.groups([("w", "frozen")], base),
    ):
        with pytest.raises(ValueError, match=r"of_kind\('bias'\) asks for the kind .* nobody said"):
            step(tx)


@pytest.mark.slow
def test_a_stack_in_two_groups():
    """Each parameter of a stack may have numbers of its own, those that it shares with all of its group too."""
    params, gradients = (
        {"w": jnp.asarray(np.random.default_rng(i).normal(size=(3, 4, 5)), jnp.float32)} for i in (0, 1)
    )
    rule = [("w", {"learning_rate": gt.layerwise_decay(0.5), "b1": gt.layerwise_decay(0.9)})]
    tx = gt.with_roles((("w", Role(stack=0)),), gt.groups(rule, gt.lamb(0.8)))
    found, state = step(tx, gradients, params)
    found, _ = tx.update(gradients, state, params)
    for i in range(3):
        alone = gt.lamb(0.8 * 0.5 ** (3 - i), b1=0.9 * 0.9 ** (3 - i))
        layer, p = {"w": gradients["w"][i]}, {"w": params["w"][i]}
        _, state = step(alone, layer, p)
        np.testing.assert_allclose(found["w"][i], alone.update(layer, state, p)[0]["w"], rtol=2e-5, atol=1e-6)


def test_nested_groups():
    inner = gt.groups([("w", {"learning_rate": 2.0})], gt.sgd(1.0))
    assert rates(gt.groups([("b", gt.sgd(3.0))], inner)) == pytest.approx({"w": 2.0, "v": 1.0, "b": 3.0})
    assert rates(gt.groups([("b", {"step_size": 3.0})], gt.chain(inner, gt.scale(1.0)))) == pytest.approx(
        {"w": 2.0, "v": 1.0, "b": 3.0}
    )


def nested(outer, inner, base):
    return gt.groups(outer, gt.groups(inner, base))


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ([("b", {"learning_rate": 3.0})], [("w", {"learning_rate": 2.0})], {"w": 2, "v": 1, "b": 3}),
        ([("**", {"learning_rate": gt.times(0.5)})], [("w", {"learning_rate": 2.0})], {"w": 1, "v": 0.5, "b": 0.5}),
        # Multiples multiply; what is said further outside is said last.
        ([(("w", "v"), {"learning_rate": gt.times(0.5)})], [("w", {"learning_rate": gt.times(4)})], {"w": 2, "v": 0.5}),
        ([("w", {"learning_rate": 5.0})], [(("w", "v"), {"learning_rate": gt.times(4)})], {"w": 5, "v": 4, "b": 1}),
        ([("**", {"learning_rate": gt.times(0.5)})], [("w", gt.sgd(7.0)), ("v", "frozen")], {"w": 7, "b": 0.5}),
        (
            [("w", {"learning_rate": gt.times(gt.schedules.linear(4))})],
            [("w", {"learning_rate": 6.0})],
            {"w": 6, "v": 1},
        ),
        ([("w", {"learning_rate": gt.times(3)})], [("w", {"learning_rate": gt.schedules.linear(4)})], {"w": 3, "v": 1}),
    ],
)
def test_what_nested_groups_mean(outer, inner, expected):
    updates, _ = step(nested(outer, inner, gt.sgd(1.0)))
    found = {n: -rate_of(updates, GRADIENTS, n) for n in expected}
    assert found == pytest.approx(expected)


def test_nested_groups_in_other_places():
    inner = gt.groups([("w", {"learning_rate": gt.times(4.0)})], gt.sgd(1.0))
    tx = gt.groups([("w", {"learning_rate": gt.times(0.5)})], gt.chain(gt.scale(1.0), inner))
    assert rates(tx) == pytest.approx({"w": 2.0, "v": 1.0, "b": 1.0})
    tx = gt.groups(
        [("**", {"learning_rate": gt.times(3.0)})],
        nested([("w", {"learning_rate": gt.times(0.5)})], [("w", {})], inner),
    )
    assert rates(tx) == pytest.approx({"w": 6.0, "v": 3.0, "b": 3.0})
    with pytest.raises(ValueError, match="learning_rate has no effect on the parameters that the rule chooses, w"):
        nested([("w", {"learning_rate": gt.times(0.5)})], [("w", gt.sgd(1.0))], gt.sgd(1.0)).init(PARAMS)
    found = jax.jit(lambda x: step(gt.groups([("w", {"learning_rate": gt.times(x)})], inner))[0])(0.5)
    assert rate_of(found, GRADIENTS, "w") == pytest.approx(-2.0)


@pytest.mark.slow
def test_nested_groups_of_a_stack():
    params = {"w": jnp.ones((3, 2))}
    inner = [("w", {"learning_rate": gt.times(2.0), "weight_decay": 0.0})]
    tx = gt.with_roles(
        (("w", Role(stack=0)),), nested([("w", {"learning_rate": gt.layerwise_decay(0.5)})], inner, gt.adamw(1.0))
    )
    updates, _ = step(tx, params, params)
    np.testing.assert_allclose(updates["w"][:, 0], [-0.25, -0.5, -1.0], rtol=1e-5)


def test_the_first_rule_counts_on_request():
    rules = [("b", {"learning_rate": 3.0}), (("w", "b"), {"learning_rate": 2.0}), ("**", "frozen")]
    updates, _ = step(gt.groups(rules, gt.sgd(1.0), first_match=True))
    assert updates["v"] is None
    assert {n: -rate_of(updates, GRADIENTS, n) for n in "wb"} == pytest.approx({"w": 2.0, "b": 3.0})
    tx = gt.groups([("w", {}), ("**", "frozen")], gt.sgd(1.0), first_match=True)  # freezes all but w
    updates, _ = step(tx)
    assert updates["v"] is updates["b"] is None and rate_of(updates, GRADIENTS, "w") == pytest.approx(-1.0)
    assert {row.path: row.rule for row in gt.describe(tx, PARAMS).parameters}["v"] == "frozen"
    with pytest.raises(ValueError, match=r"rule 1 \('w'\) is without use: before it comes rule 0 \('\*\*'\)"):
        gt.groups([("**", {}), ("w", "frozen")], gt.sgd(1.0), first_match=True).init(PARAMS)


def test_values():
    rules = [
        ("w", {"learning_rate": gt.times(0.5)}),
        (re.compile("b|c"), {"weight_decay": gt.schedules.linear(3)}),
        (gt.where("v"), gt.sgd(0.1)),
    ]
    tx = gt.groups(rules, gt.adamw(0.1))
    again = gt.groups(list(rules), gt.adamw(0.1))
    assert tx == again and hash(tx) == hash(again) and tx != gt.groups(rules[:2], gt.adamw(0.1))
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert repr(tx).startswith(
        "groups([('w', {'learning_rate': times(0.5)}), (re.compile('b|c'), {'weight_decay': linear("
    )
    assert "where('v'), sgd(0.1)" in repr(tx)
    leaves, treedef = jax.tree.flatten(tx)
    assert jax.tree.unflatten(treedef, leaves) == tx
    assert 0.1 in leaves and len(leaves) > len(jax.tree.leaves(gt.adamw(0.1)))
    assert repr(gt.layerwise_decay(0.9)) == "layerwise_decay(0.9)"


def test_a_transformation_is_an_argument():
    traces = []

    @jax.jit
    def run(tx):
        traces.append(1)
        return step(tx)[0]

    for rate in (0.1, 0.2):
        tx = gt.groups([("w", {"learning_rate": gt.times(0.5)}), ("b", gt.sgd(0.3))], gt.adam(rate))
        assert_same(run(tx), step(tx)[0], 1e-5)
    assert len(traces) == 1


def test_populations():
    rule = [("w", {"learning_rate": gt.times(0.5)})]
    found = jax.vmap(lambda rate: step(gt.groups(rule, gt.sgd(rate)))[0])(jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(found["w"][1], -GRADIENTS["w"], rtol=1e-6)
    np.testing.assert_allclose(found["v"][1], -2 * GRADIENTS["v"], rtol=1e-6)
    tx = gt.groups(rule, gt.adam(0.1, b1=jnp.asarray([0.8, 0.9])))
    with pytest.raises(ValueError, match=r"groups: b1 of the base must be a scalar .* shape \(2,\); .* jax.vmap"):
        tx.init(PARAMS)


@pytest.mark.slow
def test_nothing_traced_is_kept():
    """What is found out about parameters inside one trace serves in the next."""
    tx = gt.groups([("w", {"learning_rate": gt.times(0.5)})], gt.adam(jnp.asarray(0.1)))
    state = jax.tree.map(jnp.asarray, gt.adam(0.1).init(PARAMS))
    for update in (jax.jit(tx.update), jax.jit(lambda g, s, p: tx.update(g, s, p)), tx.update):
        assert_same(update(GRADIENTS, state, PARAMS)[0]["w"], step(gt.adam(0.05))[0]["w"], 1e-5)

    def scanned(rate):
        traced = gt.groups([("w", {"learning_rate": gt.times(0.5)})], gt.adam(rate))
        last, _ = jax.lax.scan(lambda s, _: (traced.update(GRADIENTS, s, PARAMS)[1], None), state, length=2)
        return traced.update(GRADIENTS, last, PARAMS)[0]

    assert np.all(np.isfinite(jax.jit(scanned)(0.1)["w"]))


def test_a_choice_by_dtype():
    def is_half(path, leaf):
        return leaf.dtype == jnp.bfloat16 or path == "b"

    tx = gt.groups([(is_half, {"learning_rate": 0.0})], gt.sgd(1.0))
    assert np.any(step(tx)[0]["w"])
    half = {**PARAMS, "w": PARAMS["w"].astype(jnp.bfloat16)}
    assert not np.any(step(tx, GRADIENTS, half)[0]["w"])


# Gradients that are missing.


def test_none():
    tx = gt.groups([("w", {"learning_rate": gt.times(0.5)})], gt.adam(0.1))
    state = tx.init(PARAMS)
    expected, _ = tx.update(GRADIENTS, state, PARAMS)
    for params in ((PARAMS,), ()):
        for missing in ("w", "b"):
            updates, new = tx.update({**GRADIENTS, missing: None}, state, *params)
            assert updates[missing] is None
            assert_same(updates["v"], expected["v"])
            np.testing.assert_array_equal(new[0].mu[missing], 0)
        updates, _ = tx.update(dict.fromkeys(GRADIENTS), state, *params)
        assert updates == dict.fromkeys(GRADIENTS)
    some = {**PARAMS, "v": None}
    assert step(tx, {**GRADIENTS, "v": None}, some)[0]["v"] is None
    assert tx.update({}, tx.init({}), {})[0] == {}


def test_none_without_parameters_is_an_error_if_it_matters():
    tx = gt.groups([("**", {"learning_rate": gt.layerwise_decay(0.5)})], gt.sgd(1.0))
    params = {"0": jnp.ones(2), "1": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"where gradients are None, layerwise_decay\(0.5\) is not known"):
        tx.update({**params, "1": None}, tx.init(params))
    assert tx.update({**params, "1": None}, tx.init(params), params)[0]["0"][0] == -0.25
    assert tx.update(params, tx.init(params))[0]["0"][0] == -0.25


def test_what_is_hidden_is_not_without_use():
    tx = gt.masked(gt.groups([("w", {"learning_rate": 0.5})], gt.sgd(1.0)), {"w": False, "v": True, "b": True})
    assert_same(step(tx)[0]["v"], -GRADIENTS["v"])


# Errors.


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("nix", {"learning_rate": 1.0})], "groups: 'nix' chooses no parameter; the parameters are b, v, w"),
        (
            [("w", {"learning_rate": 1.0}), ("**", {"learning_rate": 2.0})],
            r"two rules give w a learning_rate, rule 0 \('w'\) and rule 1 \('\*\*'\)",
        ),
        ([("w", "frozen"), ("w", {"learning_rate": 2.0})], "two rules choose w, rule 0 .* and rule 1 .*combined"),
        ([("w", gt.sgd(1.0)), (("w", "v"), gt.sgd(2.0))], r"two rules choose w, rule 0 .* and rule 1"),
        ([("w", {"b1": gt.times(1.5)})], r"groups: rule 0 \('w'\): adamw: b1 must be in \[0, 1\), got 1.35"),
        (
            [("w", {"b1": gt.layerwise_decay(0.5)})],
            r"groups: rule 0 \('w'\): layerwise_decay\(0.5\): no parameter of its",
        ),
    ],
)
def test_rules_that_do_not_fit_the_parameters(rules, message):
    with pytest.raises(ValueError, match=message):
        gt.groups(rules, gt.adamw(0.1)).init(PARAMS)


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ([("w", {"b1": 1.5})], ValueError, r"groups: rule 0 \('w'\): adamw: b1 must be in \[0, 1\), got 1.5"),
        ([("w", {"weight_decay": -1.0})], ValueError, r"groups: rule 0 .*: adamw: weight_decay must be .* got -1.0"),
        ([("w", {"rate": 1.0})], ValueError, "the base has no argument rate; there are learning_rate, b1, b2, eps"),
        (
            [("w", {"learning_rate": jnp.ones(2)})],
            ValueError,
            r"rule 0 .*learning_rate must be a scalar, got shape \(2",
        ),
        ([("w", {"nesterov": 1})], TypeError, r"groups: rule 0 .*nesterov must be True or False"),
        ([("w", {"nesterov": gt.times(0.5)})], TypeError, "nesterov of the base is False, which has no multiples"),
        ([("w", {"mu_dtype": "int8"})], ValueError, "rule 0 .*mu_dtype must be a floating dtype"),
        ([("w", "frozne")], TypeError, "groups: rule 0 must say what differs.* got 'frozne'"),
        ([("w", np.ones(2))], TypeError, "groups: rule 0 must say what differs"),
        ([("w",)], TypeError, "groups: rule 0 must be a pair"),
        ([], TypeError, "groups: rules must be pairs"),
        ("w", TypeError, "groups: rules must be pairs"),
        ([("w/", "frozen")], ValueError, "groups: rule 0: the glob 'w/' matches no path"),
    ],
)
def test_rules_that_are_none(rules, error, message):
    with pytest.raises(error, match=message):
        gt.groups(rules, gt.adamw(0.1))


def test_stages_of_the_whole_tree_say_so_at_init():
    for base, name, who in (
        (gt.prodigy(1.0), "learning_rate", "scale_by_prodigy: learning_rate cannot differ between groups"),
        (gt.prodigy(1.0), "estim_lr0", "scale_by_prodigy: estim_lr0 cannot differ between groups"),
        (gt.muon(1.0), "beta", "scale_by_muon: beta cannot differ between groups of parameters"),
        (gt.lookahead(gt.sgd(1.0), 2, 0.5), "slow_step_size", "groups: slow_step_size cannot differ .* lookahead"),
        (gt.flatten(gt.sgd(1.0)), "learning_rate", "groups of parameters can only differ where stages see"),
    ):
        with pytest.raises(ValueError, match=who):
            gt.groups([("w", {name: 0.25})], base).init(PARAMS)


def test_a_threshold_of_a_global_norm_may_differ():
    """The norm stays that of all; each group has a threshold of its own for it."""
    tx = gt.groups([("w", {"max_norm": 0.5})], gt.clip_by_global_norm(1.0))
    norm = float(gt.global_norm(GRADIENTS))
    assert_same(step(tx)[0], {n: g * ((0.5 if n == "w" else 1.0) / norm) for n, g in GRADIENTS.items()}, 1e-5)


def test_foreign_bases():
    with pytest.raises(ValueError, match="the base was not made by a factory of gradtx, so that its learning_rate"):
        gt.groups([("w", {"learning_rate": 1.0})], optax.adam(0.1))
    assert step(gt.groups([("w", "frozen")], gt.GradientTransformation(*gt.sgd(1.0))))[0]["w"] is None


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf"), "half", None, True])
def test_multiples_are_numbers(factor):
    with pytest.raises((ValueError, TypeError), match="times: factor must be a (finite )?number"):
        gt.times(factor)


def pair(step):
    return jnp.asarray([0.1, 0.2])


@pytest.mark.parametrize(
    ("value", "rate", "said"),
    [
        (gt.times(0.5), pair, r"groups: pair must be a scalar at each step, got shape \(2,\)"),
        (gt.times(pair), 0.1, r"groups: pair must be a scalar at each step, got shape \(2,\)"),
        (pair, 0.1, r"groups: pair must be a scalar at each step, got shape \(2,\)"),
        (gt.times(jnp.ones(2)), 0.1, r"rule 0 .*times: factor must be a scalar, got shape \(2,\)"),
        (gt.times(np.ones(2)), 0.1, r"rule 0 .*times: factor must be a scalar, got shape \(2,\)"),
    ],
)
def test_several_numbers_are_no_value_of_a_group(value, rate, said):
    """Two groups and two numbers: neither may be taken for the other."""
    tx = gt.groups([("w", {"learning_rate": value})], gt.sgd(rate))
    with pytest.raises(ValueError, match=said):
        tx.update(MATRICES, tx.init(MATRICES), MATRICES)


def test_a_choice_of_parameters_swapped():
    tx = gt.groups([("w", {"learning_rate": 0.5})], gt.muon(0.1))
    with pytest.raises(ValueError, match="the gradients have .*which the parameters lack"):
        tx.update(GRADIENTS, PARAMS, tx.init(PARAMS))
