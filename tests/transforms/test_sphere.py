# SPDX-License-Identifier: Apache-2.0
"""Parameters on spheres: `apply_updates` lands on them, whatever the chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

RNG = np.random.default_rng(0)
P = {"w": jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32), "v": jnp.asarray(RNG.normal(size=7), jnp.float32)}
TARGET = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), jnp.float32), P)


def norms(tree):
    return {n: float(jnp.linalg.norm(jnp.ravel(x.astype(jnp.float32)))) for n, x in tree.items()}


def train(tx, params=P, steps=200):
    def step(carry, _):
        params, state = carry
        g = jax.tree.map(lambda p, t: p - t.astype(p.dtype), params, TARGET)
        u, state = tx.update(g, state, params)
        return (gt.apply_updates(params, u), state), None

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0][0]


@pytest.mark.parametrize("inner", [gt.scale_by_adam(), gt.trace(0.9), gt.scale_by_lion(), gt.scale_by_laprop()])
def test_norms_stay_and_directions_are_learned(inner):
    rate = gt.linear_schedule(0.1, 0.0, 200)
    params = train(gt.hyperball(rate, inner))
    for n, size in norms(P).items():
        np.testing.assert_allclose(norms(params)[n], size, rtol=1e-6)
        cosine = jnp.vdot(params[n], TARGET[n]) / (size * norms(TARGET)[n])
        assert cosine > 0.9  # not 1: rules of signs end where their update, not the gradient, is radial


def test_a_given_norm_holds_from_the_first_step():
    one = train(gt.hyperball(0.1, norm=3.0), steps=1)
    np.testing.assert_allclose(list(norms(one).values()), 3.0, rtol=1e-6)


def test_any_chain_may_end_on_the_sphere():
    for tx in (gt.adamw(0.1, weight_decay=0.5), gt.sgd(10.0), gt.chain(gt.adam(0.1), gt.decay_weights(0.1))):
        assert norms(train(gt.chain(tx, gt.keep_norm()), steps=20)) == pytest.approx(norms(P), rel=1e-6)


def test_low_precision_lands_as_near_as_it_can():
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), P)
    assert norms(train(gt.hyperball(0.1), half)) == pytest.approx(norms(half), rel=4e-3)


def test_what_starts_at_zero_is_free():
    p = {"w": P["w"], "v": jnp.zeros(7)}
    tx = gt.hyperball(0.1)
    u, _ = tx.update(TARGET, tx.init(p), p)
    np.testing.assert_allclose(np.abs(u["v"]), 0.1, rtol=1e-4)


def test_the_angle_of_a_step_is_the_learning_rate():
    tangent = jnp.array([0.0, 1.0])
    tx = gt.hyperball(0.05, gt.identity())
    p = jnp.array([2.0, 0.0])
    u, _ = tx.update(tangent, tx.init(p), p)
    new = gt.apply_updates(p, u)
    np.testing.assert_allclose(jnp.arctan2(-new[1], new[0]), np.arctan(0.05), rtol=1e-5)


def test_opposite_step_and_zero_step_are_finite():
    p = jnp.array([1.0, 1.0])
    for g in (-p, jnp.zeros(2)):
        u, _ = gt.keep_norm().update(g, gt.keep_norm().init(p), p)
        assert np.all(np.isfinite(u))
    derivative = jax.grad(lambda g: jnp.sum(gt.keep_norm(1.0).update(g, gt.states.EmptyState(), p)[0]))(-p)
    assert np.all(np.isfinite(derivative))
