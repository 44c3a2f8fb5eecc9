# SPDX-License-Identifier: Apache-2.0
"""What `per_matrix` promises of every rule on matrices: where they lie, and how many at once, makes no difference."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx import Role

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


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rule_of_ones().update(jnp.ones(3), ()), r"does not name axes of the shape \(3,\).*is for matrices"),
        (
            lambda: run(gt.scale_by_muon(), gradients(4, 9), [("**", Role("hidden", (), 0, 1, None, (4, 4)))]),
            r"the blocks \(4, 4\) add up to 8, but the parameter of shape \(4, 9\) has 9 outputs",
        ),
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
