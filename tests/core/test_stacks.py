# SPDX-License-Identifier: Apache-2.0
"""The lift on stacks: a rule runs on each parameter in a stack as on a leaf of its own, wherever the axes are."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import Role, per_parameter, with_roles
from gradtx.core._stacks import over_stack, slots_of

SHAPE = (2, 3, 4, 5)
AXES = [(0,), (3,), (-1,), (1,), (0, 1), (0, 3), (2, 0), (-1, -2), (0, 1, 2), (3, 2, 1, 0)]


class SlotsState(NamedTuple):
    count: jax.Array
    like: jax.Array
    norm: jax.Array
    history: jax.Array
    row: jax.Array


def rule():
    """A rule with slots of all kinds: like the parameter, a scalar, a row of parameters, a vector of its first axis."""

    def init(p):
        return jnp.zeros_like(p), jnp.zeros([]), jnp.zeros((2, *p.shape)), jnp.zeros(p.shape[:1])

    def update(g, slots, p, t):
        like, norm, history, row = slots
        like = 0.5 * like + g / (1 + jnp.sqrt(jnp.sum(jnp.square(g))))
        norm = norm + jnp.sum(jnp.square(g))
        history = jnp.stack([g, history[0]])
        row = row + (jnp.sum(g, axis=tuple(range(1, g.ndim))) if g.ndim else row)
        return like * norm + history[1] + jnp.sum(row), (like, norm, history, row)

    return per_parameter(init, update, SlotsState)


def parts(x, axes):
    """The parameters of a stack, in the order of its axes from the left."""
    axes = sorted(a % np.ndim(x) for a in axes)
    rows = np.moveaxis(np.asarray(x), axes, range(len(axes)))
    return list(rows.reshape(-1, *rows.shape[len(axes) :]))


def array(seed, shape=SHAPE):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def run(tx, start, gradients):
    state, found = tx.init(start), []
    for g in gradients:
        u, state = tx.update(g, state, start)
        found.append(u)
    return found, state


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_each_parameter_by_itself(axes):
    gradients = [array(seed) for seed in range(3)]
    tx = with_roles((("**", Role(stack=axes)),), rule())
    found, state = run(tx, array(9), gradients)
    expected, apart = run(rule(), parts(array(9), axes), [parts(g, axes) for g in gradients])
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(parts(mine, axes), theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert state.like.shape == SHAPE and state.history.shape == (2, *SHAPE)
    sizes = tuple(SHAPE[a] for a in sorted(a % 4 for a in axes))
    assert state.norm.shape == sizes
    np.testing.assert_allclose(np.ravel(state.norm), [np.asarray(x) for x in apart.norm], rtol=1e-5)
    for a, b in zip(parts(state.like, axes), apart.like, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(0,), (2,), (0, 2)], ids=str)
@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")])
def test_dtypes(axes, dtypes):
    of_params, of_gradients = map(jnp.dtype, dtypes)
    p, g = array(0, (3, 3, 3)).astype(of_params), array(1, (3, 3, 3)).astype(of_gradients)
    tx = with_roles((("**", Role(stack=axes)),), rule())
    before = tx.init(p)
    u, state = tx.update(g, before, p)
    assert jax.tree.map(lambda x: x.aval, state) == jax.tree.map(lambda x: x.aval, before)
    expected, _ = rule().update(parts(g, axes), rule().init(parts(p, axes)), parts(p, axes))
    for a, b in zip(parts(u, axes), expected, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=1e-5, atol=1e-6)


def test_measures_are_of_the_whole_tree():
    def update(g, slots, p, t, total):
        return g / jnp.sqrt(total), slots

    tx = per_parameter(None, update, measure=lambda g, slots, p, t: jnp.sum(jnp.square(g)))
    g = {"w": array(0), "b": array(1, (3,))}
    found, _ = with_roles((("w", Role(stack=(1, 3))), ("b", Role())), tx).update(g, tx.init(g), g)
    expected, _ = tx.update(g, tx.init(g), g)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_a_rule_is_traced_once_for_a_stack():
    traces = []

    def update(g, slots, p, t):
        traces.append(g.shape)
        return g, slots

    tx = per_parameter(None, update)
    g = {"a": array(0), "b": array(1), "c": array(2)}
    with_roles((("**", Role(stack=(0, 1))),), tx).update(g, tx.init(g))
    assert traces == [(4, 5)]


def test_jit_scan_and_vmap():
    tx = with_roles((("**", Role(stack=(-1, 0))),), rule())
    p, gradients = array(9), jnp.stack([array(seed) for seed in range(3)])
    expected, last = run(tx, p, list(gradients))

    def step(state, g):
        u, state = tx.update(g, state, p)
        return state, u

    state, found = jax.jit(lambda p: jax.lax.scan(step, tx.init(p), gradients))(p)
    np.testing.assert_allclose(found, jnp.stack(expected), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(state, last, rtol=1e-5, atol=1e-6)

    many = jax.vmap(lambda g: tx.update(g, tx.init(p), p)[0])(gradients)
    alone = jnp.stack([tx.update(g, tx.init(p), p)[0] for g in gradients])
    np.testing.assert_allclose(many, alone, rtol=1e-5, atol=1e-6)


def test_empty_stacks():
    """A stack of no layers, and layers of no size."""
    for shape in ((0, 4), (3, 0)):
        p = jnp.zeros(shape)
        tx = with_roles((("**", Role(stack=0)),), rule())
        u, _ = tx.update(p, tx.init(p), p)
        assert u.shape == shape


def test_without_a_stack_it_is_the_function():
    assert over_stack(lambda x: x, (), (3,), "anything") == "anything"
    assert slots_of("slots", (), (3,)) == "slots"


def test_a_slot_that_could_be_mistaken_is_an_error():
    """Where it lies is known by its shape: behind the stack's axis, (2, 4) looks like the stack of (4, 4)."""
    transposed = per_parameter(lambda p: jnp.zeros((3, 2)), lambda g, s, p, t: (g, s), _One)
    p = jnp.zeros((2, 3, 2))
    with pytest.raises(ValueError, match=r"a slot of shape \(3, 2\) for each parameter of shape \(2, 3\) in a stack"):
        with_roles((("**", Role(stack=2)),), transposed).init(p)


class _One(NamedTuple):
    slot: jax.Array
