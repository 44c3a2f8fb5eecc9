# SPDX-License-Identifier: Apache-2.0
"""QK-clip: after the step, the weights of heads with too large logits are those of the step times powers of gamma."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx import Role
from gradtx.sharding import over_axes
from gradtx.testing import check_contract
from support import meshes

HALVES = [("query", 0.5), ("key", 0.5)]
PROJECTION = Role("hidden", in_axes=-3, out_axes=(-2, -1), heads=-2)
ROLES = (("query", PROJECTION), ("key", PROJECTION), ("**", Role()))
LOGITS = np.array([50.0, 400.0, 100.0, 1000.0])
RATE = 0.1


def attention(seed, heads=4, keys=4, stack=()):
    shapes = {"query": (*stack, 5, heads, 3), "key": (*stack, 5, keys, 3), "value": (*stack, 5, keys, 3)}
    rng = np.random.default_rng(seed)
    return {n: jnp.asarray(rng.normal(size=shape), jnp.result_type(float)) for n, shape in shapes.items()}


def stepped(params, gradients, max_logits, exponents=HALVES, roles=ROLES, threshold=100.0):
    """The parameters after one step of descent that ends in QK-clip."""
    tx = gt.with_roles(roles, gt.chain(gt.sgd(RATE), gt.qk_clip(exponents, threshold)))
    u, _ = tx.update(gradients, tx.init(params), params, max_logits=max_logits)
    return gt.apply_updates(params, u)


def by_formula(params, gradients, factors):
    """The parameters after one step of descent, times factors that NumPy can multiply them with."""
    after = {n: np.asarray(p, np.float64) - RATE * np.asarray(gradients[n]) for n, p in params.items()}
    return {n: factors.get(n, 1.0) * x for n, x in after.items()}


def assert_close(found, wanted):
    for n in wanted:
        np.testing.assert_allclose(found[n], wanted[n], rtol=0, atol=1e-13)


def of_heads(gamma):
    return gamma[..., None, :, None]


def test_each_head_by_its_own_largest_logit(x64):
    p, g = attention(0), attention(1)
    gamma = of_heads(np.array([1.0, 0.25, 1.0, 0.1]))
    assert_close(stepped(p, g, LOGITS), by_formula(p, g, {"query": gamma**0.5, "key": gamma**0.5}))
    uneven = stepped(p, g, LOGITS, [("key", 1), ("**/query", 0.25)], threshold=25.0)
    gamma = of_heads(25.0 / LOGITS)
    assert_close(uneven, by_formula(p, g, {"query": gamma**0.25, "key": gamma}))


@pytest.mark.parametrize("dtype", [np.float32, "bfloat16"])
def test_nothing_changes_below_the_threshold_and_by_what_is_not_finite(dtype):
    p, g = (jax.tree.map(lambda x: x.astype(dtype), attention(seed)) for seed in (0, 1))
    plain, _ = gt.sgd(RATE).update(g, gt.sgd(RATE).init(p), p)
    tx = gt.with_roles(ROLES, gt.chain(gt.sgd(RATE), gt.qk_clip(HALVES)))
    update = jax.jit(tx.update)
    for quiet in ([1.0, 100.0, -5.0, 99.9], [np.nan, np.inf, -np.inf, 0.0]):
        found, _ = update(g, tx.init(p), p, max_logits=np.asarray(quiet, np.float32))
        jax.tree.map(np.testing.assert_array_equal, found, plain)
    found, _ = update(g, tx.init(p), p, max_logits=np.asarray([np.nan, 400.0, 1.0, 1.0], np.float32))
    for n in p:
        assert found[n].dtype == p[n].dtype
        rest = [0, 2, 3]
        np.testing.assert_array_equal(found[n][:, rest], plain[n][:, rest])
        assert (n != "value") == bool(jnp.all(found[n][:, 1] != plain[n][:, 1]))


def test_grouped_queries_take_the_gamma_of_their_group(x64):
    p, g = attention(0, keys=2), attention(1, keys=2)
    factors = {
        "query": of_heads(np.array([0.25, 0.25, 0.1, 0.1])) ** 0.5,
        "key": of_heads(np.array([0.25, 0.1])) ** 0.5,
    }
    assert_close(stepped(p, g, LOGITS), by_formula(p, g, factors))
    p, g = attention(0, keys=1), attention(1, keys=1)
    assert_close(stepped(p, g, LOGITS), by_formula(p, g, {"query": 0.1**0.5, "key": 0.1**0.5}))
    # Where keys stay, heads of queries have nothing in common.
    gamma = of_heads(np.array([1.0, 0.25, 1.0, 0.1]))
    assert_close(stepped(p, g, LOGITS, [("query", 1.0)]), by_formula(p, g, {"query": gamma}))


def test_a_head_that_is_not_finite_leaves_its_group_to_the_others(x64):
    p, g = attention(0, keys=2), attention(1, keys=2)
    factors = {"query": of_heads(np.array([0.25, 0.25, 1, 1])) ** 0.5, "key": of_heads(np.array([0.25, 1])) ** 0.5}
    assert_close(stepped(p, g, np.array([np.nan, 400.0, np.inf, 1.0])), by_formula(p, g, factors))


def layers_of(tree):
    return {str(i): jax.tree.map(lambda x, i=i: x[i], tree) for i in range(2)}


STACK = attention(0, keys=2, stack=(2,)), attention(1, keys=2, stack=(2,))
STACK_LOGITS = np.stack([LOGITS, 3 * LOGITS[::-1]])


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, 3])
def test_a_stack_is_its_layers(axis):
    """With the layers in front, between, and last."""
    order = {0: (0, 1, 2, 3), 1: (1, 0, 2, 3), 3: (1, 2, 3, 0)}[axis]
    place = {a: i for i, a in enumerate(order)}
    role = Role("hidden", stack=axis, in_axes=place[1], out_axes=(place[2], place[3]), heads=place[2])
    moved = functools.partial(jax.tree.map, lambda x: x.transpose(order))
    p, g = map(moved, STACK)
    found = stepped(p, g, STACK_LOGITS, roles=[("value", Role()), ("**", role)])
    for i, (p, g) in enumerate(zip(*(layers_of(tree).values() for tree in STACK), strict=True)):
        wanted = stepped(p, g, STACK_LOGITS[i])
        for n in wanted:
            np.testing.assert_allclose(jnp.take(found[n], i, axis), wanted[n], rtol=0, atol=1e-6)


def test_layers_that_are_apart():
    """Their logits are a tree, or stand beside paths, of which the longest counts."""
    params, gradients = map(layers_of, STACK)
    wanted = {i: stepped(params[i], gradients[i], x) for i, x in zip("01", STACK_LOGITS, strict=True)}
    first, second = STACK_LOGITS
    every = [first, second], {"/0": first, "1/": second}, {"": first, "1": second}
    for max_logits in every:
        found = stepped(params, gradients, max_logits)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_the_transposed_parameter_has_the_transposed_update(x64):
    p, g = attention(0, keys=2), attention(1, keys=2)
    role = Role("hidden", in_axes=2, out_axes=(0, 1), heads=1)
    turned = functools.partial(jax.tree.map, jnp.transpose)
    found = stepped(turned(p), turned(g), LOGITS, roles=[("value", Role()), ("**", role)])
    assert_close(turned(found), stepped(p, g, LOGITS))


@pytest.mark.slow
def test_latent_attention(x64):
    """The parts of queries and keys as parameters of their own, and as blocks of fused projections."""
    rng = np.random.default_rng(0)
    shapes = {"q_nope": (5, 4, 3), "q_rope": (5, 4, 2), "k_nope": (5, 4, 3), "k_rope": (5, 2), "v": (5, 4, 2)}
    p, g = ({n: jnp.asarray(rng.normal(size=s)) for n, s in shapes.items()} for _ in range(2))
    gamma = of_heads(np.array([1.0, 0.25, 1.0, 0.1]))
    wanted = by_formula(p, g, {"q_nope": gamma**0.3, "k_nope": gamma**0.7, "q_rope": gamma})
    roles = [("k_rope", Role()), ("**", PROJECTION)]
    assert_close(stepped(p, g, LOGITS, [("q_nope", 0.3), ("k_nope", 0.7), ("q_rope", 1)], roles), wanted)

    def fused(tree):
        q, kv = (jnp.concatenate([tree[n] for n in names], -1) for names in (("q_nope", "q_rope"), ("k_nope", "v")))
        return {"q": q, "kv": kv.transpose(2, 1, 0), "k_rope": tree["k_rope"]}

    roles = [
        ("q", Role("hidden", in_axes=0, out_axes=(1, 2), heads=1, blocks=(3, 2))),
        ("kv", Role("hidden", in_axes=2, out_axes=(0, 1), heads=1, blocks=(3, 2))),
        ("**", Role()),
    ]
    found = stepped(fused(p), fused(g), LOGITS, [("q", (0.3, 1)), ("kv", [0.7, 0])], roles)
    assert_close(found, fused(wanted))


@pytest.mark.slow
def test_heads_split_between_devices():
    """Each device has some heads; `max_logits` are of all."""
    mesh = meshes.mesh(model=2)
    p, g = attention(0, keys=2), attention(1, keys=2)
    spec = P(None, "model", None)
    inner = gt.chain(gt.sgd(RATE), gt.qk_clip(HALVES))
    tx = gt.with_roles(ROLES, over_axes(inner, spec))

    def run(tx, p, g, logits):
        return tx.update(g, tx.init(p), p, max_logits=logits)[0]

    logits = jnp.asarray(LOGITS, jnp.float32)
    split = jax.shard_map(functools.partial(run, tx), mesh=mesh, in_specs=(spec, spec, P()), out_specs=spec)
    found, wanted = jax.jit(split)(p, g, logits), run(gt.with_roles(ROLES, inner), p, g, logits)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), found, wanted)
    unsaid = functools.partial(run, gt.with_roles(ROLES, inner))
    with pytest.raises(ValueError, match="qk_clip: .*over_axes"):
        jax.jit(jax.shard_map(unsaid, mesh=mesh, in_specs=(spec, spec, P()), out_specs=spec))(p, g, logits)


@pytest.mark.slow
def test_blocks_split_between_devices():
    """A parameter of which every axis is split, and its outputs have powers of their own."""
    mesh = meshes.mesh(data=2, model=2, width=2)
    rng = np.random.default_rng(0)
    p, g = ({"q": jnp.asarray(rng.normal(size=(4, 4, 6)), jnp.float32)} for _ in range(2))
    rules = [("q", Role("hidden", in_axes=0, out_axes=(1, 2), heads=1, blocks=(4, 2)))]
    spec, stage = P("data", "model", "width"), gt.qk_clip([("q", (0.5, 1))])

    def run(tx, p, g, logits):
        return tx.update(g, tx.init(p), p, max_logits=logits)[0]

    split = functools.partial(run, gt.with_roles(rules, over_axes(stage, spec)))
    split = jax.shard_map(split, mesh=mesh, in_specs=(spec, spec, P()), out_specs=spec)
    logits = jnp.asarray(LOGITS, jnp.float32)
    found, wanted = jax.jit(split)(p, g, logits), run(gt.with_roles(rules, stage), p, g, logits)
    np.testing.assert_allclose(found["q"], wanted["q"], rtol=0, atol=1e-6)
    gamma = np.array([1.0, 0.25, 1.0, 0.1])[:, None] ** np.array([0.5, 0.5, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(p["q"] + found["q"], gamma * np.asarray(p["q"] + g["q"]), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_heads_on_an_explicit_mesh():
    mesh = meshes.mesh(jax.sharding.AxisType.Explicit, data=2, model=2)
    p, g = attention(0, keys=2), attention(1, keys=2)
    wanted = stepped(p, g, LOGITS.astype(np.float32))
    with jax.set_mesh(mesh):
        p, g = (jax.tree.map(lambda x: jax.device_put(x, P(None, "model", None)), tree) for tree in (p, g))
        found = stepped(p, g, jax.device_put(jnp.asarray(LOGITS, jnp.float32), P("model")))
    for n in p:
        assert found[n].sharding.spec == p[n].sharding.spec
        np.testing.assert_allclose(found[n], wanted[n], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_behind_muon(x64):
    """The optimizer of Kimi K2: Muon without Nesterov momentum, weight decay, QK-clip."""
    p, g = attention(0, keys=2), attention(1, keys=2)
    muon = gt.muon(RATE, nesterov=False, weight_decay=0.1, consistent_rms=0.2)
    plain, clipped = (gt.with_roles(ROLES, tx) for tx in (muon, gt.chain(muon, gt.qk_clip(HALVES))))
    u, _ = plain.update(g, plain.init(p), p)
    after = jax.tree.map(np.add, p, u)
    u, _ = clipped.update(g, clipped.init(p), p, max_logits=LOGITS)
    gamma = np.sqrt([0.25, 0.1])
    factors = {"query": of_heads(gamma.repeat(2)), "key": of_heads(gamma), "value": 1.0}
    assert_close(gt.apply_updates(p, u), {n: factors[n] * np.asarray(after[n]) for n in p})


@pytest.mark.slow
def test_with_guard_groups_and_absent_gradients(x64):
    p, g = attention(0), attention(1)
    inner = gt.chain(gt.sgd(RATE), gt.qk_clip(HALVES))
    tx = gt.with_roles(ROLES, gt.guard(gt.groups([("key", {"learning_rate": gt.times(0.5)})], inner)))
    assert gt.needs(tx) == {"max_logits"}
    u, _ = tx.update(g, tx.init(p), p, max_logits=LOGITS, value=jnp.asarray(1.0))
    slower = {**g, "key": 0.5 * g["key"]}
    assert_close(gt.apply_updates(p, u), stepped(p, slower, LOGITS))
    masked = gt.with_roles(ROLES, gt.chain(gt.masked(gt.sgd(RATE), ~gt.where("value")), gt.qk_clip(HALVES)))
    u, _ = masked.update({**g, "key": None}, masked.init(p), p, max_logits=dict.fromkeys(p, LOGITS))
    assert u["key"] is None
    np.testing.assert_allclose(p["query"] + u["query"], stepped(p, g, LOGITS)["query"], rtol=0, atol=1e-13)


def test_a_threshold_may_be_a_schedule(x64):
    p, g = attention(0), attention(1)
    tx = gt.with_roles(ROLES, gt.qk_clip(HALVES, gt.linear_schedule(1e6, 100.0, 1)))
    state, update = tx.init(p), jax.jit(tx.update)
    u, state = update(g, state, p, max_logits=LOGITS)
    jax.tree.map(np.testing.assert_array_equal, u, g)
    u, _ = update(g, state, p, max_logits=LOGITS)
    wanted, _ = gt.with_roles(ROLES, gt.qk_clip(HALVES)).update(g, tx.init(p), p, max_logits=LOGITS)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), u, wanted)


def projections(params):
    return {n: PROJECTION if is_projection(n, None) else Role() for n in params}


def is_projection(path, p):
    return path in ("query", "key")


@pytest.mark.slow
def test_contract():
    tx = gt.with_roles(projections, gt.chain(gt.sgd(RATE), gt.qk_clip([(is_projection, 0.5)])))
    check_contract(tx, attention(0, keys=2), max_logits=LOGITS.astype(np.float32))


ERRORS = {
    "no pairs": (lambda: gt.qk_clip(0.5), TypeError, "exponents must be pairs .*, got 0.5"),
    "no pair": (lambda: gt.qk_clip([("q", 0.5), "k"]), TypeError, r"exponents\[1\] must be a pair .*, got 'k'"),
    "a negative power": (
        lambda: gt.qk_clip([("q", -1.0)]),
        ValueError,
        r"exponents\[0\]: a power must be a number",
    ),
    "no glob": (lambda: gt.qk_clip([("q/", 1.0)]), ValueError, r"exponents\[0\]: the glob 'q/' matches no path"),
    "a threshold of 0": (lambda: gt.qk_clip(HALVES, 0.0), ValueError, "threshold"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_calls_without_a_meaning_raise(name):
    make, kind, match = ERRORS[name]
    with pytest.raises(kind, match=f"qk_clip: .*{match}" if name != "a threshold of 0" else match):
        make()


TREE = attention(0, keys=2)
WITH_BLOCKS = Role("hidden", in_axes=0, out_axes=(1, 2), heads=1, blocks=(2, 2))
MISTAKES = {
    "a rule without use": ({"exponents": [("queries", 1)]}, "'queries' matches no parameter.*the closest are query"),
    "no heads": ({"exponents": [("value", 1)]}, r"at value: Role\('other'\) does not say which axis has the heads"),
    "no blocks": ({"exponents": [("key", [1, 0])]}, r"at key: 2 powers for the blocks \(\) of 3 outputs a head"),
    "other blocks": (
        {"exponents": [("key", (1, 0))], "roles": [("key", WITH_BLOCKS), *ROLES[::2]]},
        r"2 powers for the blocks \(2, 2\) of 3 outputs a head: the role must have as many",
    ),
    "no max_logits": ({"max_logits": None}, r"update needs max_logits: call update\(.*max_logits=...\)"),
    "nothing for a key": ({"max_logits": {"query": LOGITS}}, "nothing for key: .* such as .*; there is 'query'"),
    "layers of one": (
        {"max_logits": np.stack([LOGITS] * 2)},
        r"shape \(heads,\) .* \(5, [42], 3\), got shape \(2, 4\)",
    ),
    "one number": ({"max_logits": 3.0}, r"max_logits must be of shape \(heads,\) .*, got shape \(\)"),
    "other heads": ({"max_logits": LOGITS[:3]}, "are of 3 heads, this parameter has .*: each must divide"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_does_not_fit_raises(name):
    changes, match = MISTAKES[name]
    with pytest.raises(ValueError, match=f"qk_clip: .*{match}"):
        stepped(TREE, TREE, **{"max_logits": LOGITS, **changes})


def test_what_it_needs_is_missed():
    tx = gt.with_roles(ROLES, gt.qk_clip(HALVES))
    with pytest.raises(ValueError, match="qk_clip: update needs the parameters"):
        tx.update(TREE, tx.init(TREE), max_logits=LOGITS)
    with pytest.raises(ValueError, match="qk_clip: at key: no role is known: wrap the whole .* in with_roles"):
        gt.qk_clip(HALVES).init(TREE)
    stack = attention(0, stack=(2,))
    roles = [("value", Role()), ("**", Role("hidden", stack=0, heads=-2))]
    with pytest.raises(ValueError, match=r"of shape \(2, heads\) for this parameter of shape \(2, 5, 4, 3\), got"):
        stepped(stack, stack, LOGITS, roles=roles)
