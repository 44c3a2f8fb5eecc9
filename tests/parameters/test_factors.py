# SPDX-License-Identifier: Apache-2.0
"""Layer-wise decay counts layers right, and a model in the maximal update parametrization moves alike at all widths."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx import Role


def rates(rules, params, roles=None, base=None):
    """The learning rate of each parameter, as an array for a stack."""
    tx = gt.groups(rules, base or gt.sgd(1.0))
    tx = tx if roles is None else gt.with_roles(roles, tx)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(ones, tx.init(params), params)
    return jax.tree.map(lambda u: -np.asarray(u), updates)


def decay(*arguments):
    return [("**", {"learning_rate": gt.layerwise_decay(*arguments)})]


# Layer-wise decay.


def test_layers_in_a_row():
    params = {f"h_{i}": {"w": jnp.ones(2)} for i in range(12)}
    found = rates([("h_*/**", {"learning_rate": gt.layerwise_decay(0.5)})], params)
    for i in range(12):
        np.testing.assert_allclose(found[f"h_{i}"]["w"], 0.5 ** (12 - i))


def test_what_is_in_no_layer():
    params = {"embed": jnp.ones(2), "layers": [jnp.ones(2), jnp.ones(2)], "norm": jnp.ones(2)}
    roles = [("embed", Role("embedding")), ("**", Role())]
    found = rates(decay(0.5), params, roles)
    assert [float(found["embed"][0]), float(found["norm"][0])] == [0.125, 1.0]
    assert [float(x[0]) for x in found["layers"]] == [0.25, 0.5]
    with pytest.raises(
        ValueError, match=r"groups: rule 0 \('\*\*'\): layerwise_decay\(0.5\): embed has no layer's number"
    ):
        rates(decay(0.5), params)


def test_stacks_equal_rows():
    """Also where a number in the path is not that of a layer: linen numbers modules."""
    params = {"blocks": {"Dense_0": jnp.ones((3, 2, 4)), "LayerNorm_1": jnp.ones((4, 3))}, "Embed_0": jnp.ones((5, 4))}
    roles = [("Dense_0", Role("hidden", 0, 1, 2)), ("LayerNorm_1", Role("norm", 1)), ("Embed_0", Role("embedding"))]
    found = rates(decay(0.5), params, roles)
    np.testing.assert_allclose(found["blocks"]["Dense_0"][:, 0, 0], [0.125, 0.25, 0.5])
    np.testing.assert_allclose(found["blocks"]["LayerNorm_1"][0], [0.125, 0.25, 0.5])
    np.testing.assert_allclose(found["Embed_0"], 0.0625)


def test_stacks_of_stacks_count_on():
    params = {"w": jnp.ones((2, 5, 3))}
    found = rates(decay(0.5), params, [("w", Role(stack=(0, 2)))])
    np.testing.assert_allclose(found["w"][:, 0], 0.5 ** (6.0 - np.arange(6).reshape(2, 3)))


def test_layers_said_by_a_function():
    params = {"a": jnp.ones(1), "b": jnp.ones((3, 1)), "c": jnp.ones(1)}
    depths = {"a": 0, "b": [1, 3, 5], "c": None}
    roles = [("b", Role(stack=0)), ("**", Role())]
    found = rates(decay(0.5, depths.__getitem__), params, roles)
    np.testing.assert_allclose(found["a"], 0.5**6)
    np.testing.assert_allclose(found["b"][:, 0], [0.5**5, 0.5**3, 0.5])
    np.testing.assert_allclose(found["c"], 1.0)


def test_a_schedule_decays_too():
    tx = gt.with_roles([("w", Role(stack=0))], gt.groups(decay(0.5), gt.sgd(gt.schedules.linear(4))))
    ones = {"w": jnp.ones((2, 3))}
    state = tx.init(ones)
    for rate in (1.0, 0.75):
        updates, state = tx.update(ones, state)
        np.testing.assert_allclose(updates["w"][:, 0], [-0.25 * rate, -0.5 * rate])


# Products, schedules and traced numbers.

TWO = {f"h_{i}": jnp.ones(2) for i in range(2)}


def test_products():
    both = gt.times(16) * gt.layerwise_decay(0.9)
    found = rates([("**", {"learning_rate": both})], TWO)
    assert {n: float(x[0]) for n, x in found.items()} == pytest.approx({"h_0": 16 * 0.81, "h_1": 16 * 0.9})
    swapped = rates([("**", {"learning_rate": gt.layerwise_decay(0.9) * gt.times(4) * gt.times(4)})], TWO)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, swapped)
    stack = {"w": jnp.ones((3, 4, 4))}
    product = gt.times(3.0) * gt.layerwise_decay(0.5) * gt.mup({"w": jnp.ones((3, 2, 2))})
    found = rates([("w", {"learning_rate": product})], stack, [("w", Role("hidden", 0, 1, 2))])
    np.testing.assert_allclose(found["w"][:, 0, 0], [3 / 16, 3 / 8, 3 / 4])
    assert repr(both) == "times(16) * layerwise_decay(0.9)" and both.of_all and not (gt.times(1) * gt.times(2)).of_all
    assert both == gt.times(16) * gt.layerwise_decay(0.9) != gt.times(15) * gt.layerwise_decay(0.9)
    assert hash(both) == hash(gt.times(16) * gt.layerwise_decay(0.9)) and pickle.loads(pickle.dumps(both)) == both
    with pytest.raises(TypeError):
        gt.times(2) * 3


def rates_of_steps(tx, params, steps=3):
    """The learning rates of some steps."""
    state, found = tx.init(params), []
    for _ in range(steps):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        found.append(jax.tree.map(lambda u: -np.asarray(u), updates))
    return found


@pytest.mark.parametrize("schedule", [gt.schedules.linear(4), lambda step: 1 - step / 4], ids=["value", "function"])
def test_times_a_schedule(schedule):
    found = rates_of_steps(gt.groups([("h_0", {"learning_rate": gt.times(schedule)})], gt.sgd(2.0)), TWO)
    assert [float(x["h_0"][0]) for x in found] == pytest.approx([2.0, 1.5, 1.0])
    assert [float(x["h_1"][0]) for x in found] == [2.0, 2.0, 2.0]
    product = gt.times(schedule) * gt.layerwise_decay(0.5)
    base = gt.sgd(gt.schedules.linear(2))
    found = rates_of_steps(gt.groups([("**", {"learning_rate": product})], base), TWO, 2)
    assert [float(x["h_0"][0]) for x in found] == pytest.approx([0.25, 0.75 * 0.5 * 0.25])
    tx = gt.with_roles([("w", Role(stack=0))], gt.groups([("w", {"learning_rate": product})], gt.sgd(2.0)))
    found = rates_of_steps(tx, {"w": jnp.ones((2, 3))}, 2)
    np.testing.assert_allclose([x["w"][:, 0] for x in found], [[0.5, 1.0], [0.375, 0.75]])
    described = gt.explain_path(gt.groups([("h_0", {"learning_rate": gt.times(schedule)})], gt.sgd(2.0)), TWO, "h_0")
    assert "learning_rate 2 -> 2 at step 0" in str(described)


def test_a_traced_factor_does_not_compile_again():
    traces = []

    def updates(tx):
        traces.append(tx)
        ones = jax.tree.map(jnp.ones_like, TWO)
        return tx.update(ones, tx.init(TWO), TWO)[0]["h_0"][0]

    def tx(factor):
        return gt.groups([("**", {"learning_rate": gt.times(factor) * gt.layerwise_decay(0.5)})], gt.sgd(2.0))

    as_argument, inside = jax.jit(updates), jax.jit(lambda factor: updates(tx(factor)))
    for factor in (1.0, 2.0, 3.0):
        assert float(as_argument(tx(factor))) == float(inside(factor)) == -0.5 * factor
    assert len(traces) == 2
    assert float(jax.grad(inside)(2.0)) == -0.5


@pytest.mark.parametrize("bad", [0.0, 1.1, -0.5, float("nan"), "0.5", None])
def test_a_decay_is_a_number(bad):
    with pytest.raises(ValueError, match=r"layerwise_decay: decay must be in \(0, 1\]"):
        gt.layerwise_decay(bad)


# The maximal update parametrization.

IN, OUT = 8, 10
ROLES = (
    ("embed", Role("embedding", in_axes=0, out_axes=1)),
    ("bias", Role("bias")),
    ("hidden*", Role("hidden", in_axes=0, out_axes=1)),
    ("head", Role("head", in_axes=0, out_axes=1)),
)


def shapes(width):
    hidden = {f"hidden{i}": (width, width) for i in range(2)}
    return {"embed": (IN, width), "bias": (width,), **hidden, "head": (width, OUT)}


def ones(width):
    return {n: jnp.ones(s) for n, s in shapes(width).items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("adam", {"embed": 1.0, "bias": 1.0, "hidden0": 0.25, "hidden1": 0.25, "head": 0.25}),
        ("sgd", {"embed": 4.0, "bias": 4.0, "hidden0": 1.0, "hidden1": 1.0, "head": 0.25}),
    ],
)
def test_the_table(rule, expected):
    found = rates([("**", {"learning_rate": gt.mup(ones(16), rule)})], ones(64), ROLES)
    assert {n: float(np.ravel(x)[0]) for n, x in found.items()} == expected


def test_a_stack_is_one_layer():
    base, wide = {"w": jnp.ones((3, 4, 4))}, {"w": jnp.ones((3, 8, 8))}
    role = [("w", Role("hidden", 0, 1, 2))]
    np.testing.assert_allclose(rates([("w", {"learning_rate": gt.mup(base)})], wide, role)["w"], 0.5)


def forward(params, x):
    """The outputs of all layers."""
    found = [x @ params["embed"] + params["bias"][None]]
    for name in ("hidden0", "hidden1"):
        found.append(jnp.tanh(found[-1]) @ params[name])
    return [*found, jnp.tanh(found[-1]) @ params["head"]]


def change_of_outputs(width, rule, base, multiples):
    """How much some steps of training change what each layer puts out: the coordinate check."""
    draws = np.random.default_rng(0)
    fan_in = {"embed": IN**0.5, "bias": np.inf, "hidden0": width**0.5, "hidden1": width**0.5, "head": float(width)}
    params = {n: jnp.asarray(draws.normal(size=s) / fan_in[n], jnp.float32) for n, s in shapes(width).items()}
    x, y = (jnp.asarray(draws.normal(size=(16, n)), jnp.float32) for n in (IN, OUT))
    tx = gt.groups([("**", {"learning_rate": gt.mup(ones(32), rule)})], base) if multiples else base
    tx = gt.with_roles(ROLES, tx)

    def loss(params):
        return jnp.mean(jnp.square(forward(params, x)[-1] - y))

    state, before = tx.init(params), forward(params, x)
    for _ in range(3):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = gt.apply_updates(params, updates)
    return [float(jnp.sqrt(jnp.mean(jnp.square(a - b)))) for a, b in zip(forward(params, x), before, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "base"), [("adam", gt.adam(0.01)), ("sgd", gt.sgd(0.5))])
def test_the_coordinate_check(rule, base):
    narrow, wide = (change_of_outputs(width, rule, base, True) for width in (64, 512))
    assert all(0.6 < b / a < 1.6 for a, b in zip(narrow, wide, strict=True)), (narrow, wide)
    if rule == "adam":
        narrow, wide = (change_of_outputs(width, rule, base, False) for width in (64, 512))
        assert wide[-1] / narrow[-1] > 2.5  # without, wide models fly apart


@pytest.mark.parametrize(
    ("params", "roles", "message"),
    [
        (ones(64), None, "mup: nobody said what bias is: wrap the whole transformation in with_roles"),
        (ones(64), [("**", Role("hidden"))], "mup: the role of bias must name in_axes and out_axes"),
        (ones(64), [("**", Role())], r"mup: the role of hidden0 must say its kind, as 2 of its axes differ"),
        ({**ones(64), "more": jnp.ones(3)}, [*ROLES, ("more", Role())], "mup: base_params has no such parameter: more"),
        ({**ones(64), "bias": jnp.ones((3, 4))}, ROLES, r"mup: base_params has it in shape \(16,\): bias"),
    ],
)
def test_what_mup_must_know(params, roles, message):
    with pytest.raises(ValueError, match=message):
        rates([("**", {"learning_rate": gt.mup(ones(16))})], params, roles)


def test_a_rule_of_mup():
    with pytest.raises(ValueError, match="mup: rule must be 'adam' or 'sgd'"):
        gt.mup(ones(16), "lion")
    assert repr(gt.mup({"w": jnp.ones((2, 3))})) == "mup({'w': (2, 3)}, 'adam')"
    assert gt.mup({"w": (2, 3), "b": (3,)}) == gt.mup({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})
    assert gt.mup(ones(16)) == gt.mup(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), ones(16)))
