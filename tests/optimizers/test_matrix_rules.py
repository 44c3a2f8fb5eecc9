# SPDX-License-Identifier: Apache-2.0
"""What `per_matrix` promises of every rule on matrices: where they lie, and how many at once, makes no difference."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx import Role
from support.meshes import mesh, put

POLAR = {
    "muon": gt.scale_by_muon(bias_correction=False),
    "normuon": gt.scale_by_normuon(),
    "adamuon": gt.scale_by_adamuon(),
    "namo": gt.scale_by_namo(),
    "polargrad": gt.scale_by_polargrad(),
    "aurora": gt.scale_by_aurora(),
    "dion": gt.scale_by_dion(rank=2),
    "dion2": gt.scale_by_dion2(),
}
KRONECKER = {
    "shampoo": gt.scale_by_shampoo(eps=1e-3),
    "soap": gt.scale_by_soap(precondition_frequency=2),
    "kl_shampoo": gt.scale_by_kl_shampoo(precondition_frequency=2),
    "kl_soap": gt.scale_by_kl_soap(precondition_frequency=2),
    "splus": gt.scale_by_splus(precondition_frequency=2),
    "psgd_kron": gt.scale_by_psgd_kron(),
}
RULES = POLAR | KRONECKER
MATRIX = Role("hidden", in_axes=0, out_axes=1)
STEPS = 3


def gradients(*shape):
    return [np.random.default_rng(i).normal(size=shape) for i in range(STEPS)]


def run(tx, steps, rules=None):
    """The updates of some steps from zeros, of trees of arrays."""
    tx = tx if rules is None else gt.with_roles(rules, tx)
    steps = [jax.tree.map(jnp.asarray, g) for g in steps]
    params = jax.tree.map(jnp.ones_like, steps[0])

    def body(state, g):
        u, state = tx.update(g, state, params)
        return state, u

    return jax.jit(lambda gs: jax.lax.scan(body, tx.init(params), gs)[1])(jax.tree.map(lambda *x: jnp.stack(x), *steps))


def assert_same(found, expected, limit=1e-11):
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit * np.max(np.abs(expected)))


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_many_at_once_are_each_by_itself(name, x64):
    steps = gradients(3, 4, 4)
    alone = np.stack([run(RULES[name], [g[i] for g in steps]) for i in range(3)], axis=1)
    bucket = run(RULES[name], [dict(enumerate(g)) for g in steps])
    stack = run(RULES[name], steps, [("**", Role("hidden", stack=0, in_axes=1, out_axes=2))])
    heads = run(
        RULES[name], [g.swapaxes(0, 1) for g in steps], [("**", Role("hidden", in_axes=0, out_axes=2, heads=1))]
    )
    for i in range(3):
        assert_same(bucket[i], alone[:, i])
    assert_same(stack, alone)
    assert_same(np.swapaxes(heads, 1, 2), alone)


def test_more_than_run_at_once(x64):
    """37: two rounds of sixteen and a rest."""
    steps = gradients(37, 3, 4)
    found = run(RULES["normuon"], [dict(enumerate(g)) for g in steps])
    for i in (0, 15, 16, 36):
        assert_same(found[i], run(RULES["normuon"], [g[i] for g in steps]))


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_a_transposed_matrix_has_the_transposed_update(name, x64):
    steps = gradients(4, 4)
    turned = run(RULES[name], [g.T for g in steps], [("**", Role("hidden", in_axes=1, out_axes=0))])
    assert_same(np.swapaxes(turned, 1, 2), run(RULES[name], steps, [("**", MATRIX)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_blocks_that_lie_side_by_side_are_matrices_of_their_own(name, x64):
    steps, widths = gradients(4, 10), (4, 2, 4)
    fused = run(RULES[name], steps, [("**", Role("hidden", in_axes=0, out_axes=1, blocks=widths))])
    parts = [np.split(g, np.cumsum(widths)[:-1], axis=1) for g in steps]
    apart = run(RULES[name], parts, [("**", MATRIX)])
    assert_same(fused, np.concatenate(apart, axis=2))


def test_blocks_are_scaled_by_their_own_shapes():
    tx = gt.with_roles([("**", Role("hidden", in_axes=0, out_axes=1, blocks=(2, 8)))], gt.scale_by_matrix_shape())
    u, _ = tx.update(jnp.ones((4, 10)), tx.init(jnp.ones((4, 10))))
    np.testing.assert_allclose(u[0], [1, 1, *[2**0.5] * 8], rtol=1e-6)


def test_one_block_is_the_matrix():
    gs = gradients(4, 6)[:2]
    alone, one = (Role("hidden", in_axes=0, out_axes=1, blocks=widths) for widths in ((), (6,)))
    found = run(gt.scale_by_dion(rank=2), gs, [("**", one)])
    np.testing.assert_array_equal(found, run(gt.scale_by_dion(rank=2), gs, [("**", alone)]))


def test_the_kernel_of_a_convolution_counts_as_inputs():
    g = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    conv = Role("hidden", in_axes=2, out_axes=3, kernel=(0, 1))
    found = run(gt.scale_by_muon(), [g], [("**", conv)])
    np.testing.assert_allclose(found.reshape(24, 5), run(gt.scale_by_muon(), [g.reshape(24, 5)])[0], atol=1e-6)


def rule_of_ones(**options):
    @gt.transformation
    def stage():
        return gt.per_matrix(None, lambda g, slots, p, t: (jnp.ones_like(g), ()), **options)

    return stage()


def rule_returning(u):
    @gt.transformation
    def stage():
        return gt.per_matrix(None, lambda g, slots, p, t: (u, ()))

    return stage().update(jnp.ones((2, 2)), ())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rule_of_ones().update(jnp.ones(3), ()), r"does not name axes of the shape \(3,\).*is for matrices"),
        (
            lambda: run(gt.scale_by_muon(), gradients(4, 9), [("**", Role("hidden", (), 0, 1, None, (4, 4)))]),
            r"the blocks \(4, 4\) add up to 8, but the parameter of shape \(4, 9\) has 9 outputs",
        ),
        (lambda: rule_returning(jnp.ones(2)), r"the gradient has shape \(2, 2\), but the update has shape \(2,\)"),
        (lambda: Role("hidden", blocks=(0, 3)), "blocks must be the widths of the blocks, positive whole numbers"),
        (lambda: gt.scale_by_soap(precondition_frequency=0), "precondition_frequency must be"),
        (lambda: run(gt.scale_by_dion(rank=9), gradients(4, 4)), "rank"),
        (lambda: Role("hidden", in_axes=0, out_axes=1, kernel=1).fitted(2), "axis 1 is named more than once"),
    ],
)
def test_errors(call, said):
    with pytest.raises(ValueError, match=said):
        call()


class SeenState(NamedTuple):
    count: jax.Array
    seen: Any
    sums: Any


@gt.transformation
def scale_by_seen():
    """A rule with a slot of the shape of the matrix, one of another shape, and p."""

    def init(p):
        return jnp.zeros_like(p), jnp.zeros(p.shape[1])

    def update(g, slots, p, t):
        seen, sums = slots
        seen, sums = seen + g, sums + jnp.sum(g, axis=0)
        return t * seen + p * sums[None], (seen, sums)

    return gt.per_matrix(init, update, SeenState, needs_params=True)


def test_slots_lie_as_the_parameter_or_behind_its_stack():
    role = Role("hidden", stack=-1, in_axes=1, out_axes=0, blocks=(2, 1))
    tx, p = gt.with_roles([("**", role)], scale_by_seen()), jnp.arange(24.0).reshape(3, 4, 2)
    u, state = tx.update(p + 1, tx.init(p), p)
    assert state.seen.shape == p.shape and [x.shape for x in state.sums] == [(2, 2), (2, 1)]
    sums = np.asarray(p + 1).sum(axis=1)
    np.testing.assert_allclose(u, (p + 1) + p * sums[:, None], rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(state.sums, axis=1), sums.T, rtol=1e-6)


OF_MUON = ("muon", "normuon", "adamuon", "aurora", "dion2", "scion")
RECIPES = (*OF_MUON, *KRONECKER)
AROUND = {
    "guard": gt.guard,
    "cautious": lambda tx: gt.cautious(tx, descent=True),
    "groups": lambda tx: gt.groups([("v", {"learning_rate": gt.times(0.5)})], tx),
    "schedule_free": lambda tx: gt.schedule_free(tx, 0.01, 0.9),
    "stored": lambda tx: gt.stored(tx, {"mu": gt.precision.int8(4)}, min_size=0),
    "symmetric": lambda tx: gt.stored(tx, gt.precision.symmetric(), min_size=0),
    "cautious decay": lambda tx: gt.chain(tx, gt.decay_weights(0.1, "decoupled", learning_rate=0.01, cautious=True)),
}
RUNS = [(name, around) for name in RECIPES for around in AROUND]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "around"), RUNS)
def test_wrappers_go_around_any_of_them(name, around):
    """Steps are finite and change every parameter; states keep their types; what must not change a step does not."""
    base = gt.splus(0.01, ema=None) if name == "splus" else getattr(gt, name)(0.01)
    tx = gt.with_roles([("v", Role("bias")), ("**", MATRIX)], AROUND[around](base))
    alone = gt.with_roles([("v", Role("bias")), ("**", MATRIX)], base)
    rng = np.random.default_rng(0)
    params = {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in (("v", (4,)), ("w", (4, 4)))}
    gradients = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)

    def two_steps(tx, params):
        state = tx.init(params)
        for _ in range(2):
            u, new = tx.update(gradients, state, params)
            assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
            params, state = gt.apply_updates(params, u), new
        return u, params

    u, new = jax.jit(lambda p: two_steps(tx, p))(params)
    assert all(np.all(np.isfinite(x)) and np.any(x) for x in jax.tree.leaves(u))
    if around in ("guard", "groups"):
        want = jax.jit(lambda p: two_steps(alone, p))(params)[0]
        np.testing.assert_allclose(u["w"], want["w"], rtol=1e-5, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", KRONECKER)
def test_over_devices_as_on_one(name):
    """`zero` with momentum in 8 bits and one half of each factor: an eighth of the state, and the same steps."""
    policy = [{"mu": gt.precision.int8(8)}, gt.precision.symmetric()]
    inner = gt.stored(gt.stored(RULES[name], policy[1], min_size=0), policy[0], min_size=0)
    rng = np.random.default_rng(0)
    p, *steps = [{n: rng.normal(size=(16, 16)).astype(np.float32) for n in "ab"} for _ in range(3)]
    on = mesh(data=8)
    everywhere = dict.fromkeys(p, P(None, None))
    tx, params = gt.sharding.zero(inner), put(p, on, everywhere)
    one = jax.tree.map(jnp.asarray, p)
    with jax.set_mesh(on):
        state, want = gt.sharding.init_sharded(tx, params), inner.init(one)
        update, update_one = jax.jit(tx.update), jax.jit(inner.update)
        for g in steps:
            u, state = update(put(g, on, everywhere), state, params)
            v, want = update_one(jax.tree.map(jnp.asarray, g), want, one)
    largest = max(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    assert largest <= 16 * 16 * 4 / 8 + 32
    for n in p:
        np.testing.assert_allclose(u[n], v[n], rtol=0, atol=1e-2 * np.abs(v[n]).max())
