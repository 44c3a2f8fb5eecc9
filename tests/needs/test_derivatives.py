# SPDX-License-Identifier: Apache-2.0
"""Derivatives through the optimizer, as meta-learning takes them, are finite where gradients are zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.testing._case import make_case
from gradtx.testing._contract import CLAUSES
from support import registry

PARAMS = {"w": jnp.asarray([[1.0, -2.0, 0.5], [0.3, 0.0, -1.0]]), "b": jnp.asarray([0.5, -0.5, 2.0])}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def after_two_steps(tx, gradients, params, **extra):
    """Σ p² after two steps, the second with the gradients moved off by a little of themselves."""
    state = tx.init(params)
    for scale in (1.0, 0.5):
        updates, state = tx.update(jax.tree.map(lambda g, scale=scale: g * scale, gradients), state, params, **extra)
        params = jax.tree.map(jnp.add, params, updates)
    return sum(jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params))


@pytest.mark.usefixtures("standard_promotion")
def test_in_optax_they_are_nan():
    for tx in (optax.adam(0.1), optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))):
        found = jax.grad(lambda g, tx=tx: after_two_steps(tx, g, PARAMS))(ZEROS)
        assert all(np.isnan(x).all() for x in jax.tree.leaves(found))
    rooted = optax.adam(0.1, eps_root=1e-8)
    found = jax.grad(lambda g: after_two_steps(rooted, g, PARAMS))(ZEROS)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


NAMES = ["adam", "adamw", "rmsprop", "adagrad", "clip_by_global_norm", "lamb", "lookahead", "reduce_on_plateau", "sam"]


@pytest.mark.parametrize("name", NAMES)
def test_finite(name):
    """A clause of the contract, which tests/test_laws.py holds for every factory."""
    CLAUSES["derivatives"](make_case(registry.example(name), PARAMS, None, 2, registry.extra_arguments(name)))


SEARCHES = {"scale_by_backtracking_linesearch", "scale_by_zoom_linesearch", "lbfgs"}
"""Loops of unknown length, which JAX differentiates forwards only."""


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_forward_derivatives_of_searches_are_finite(name):
    """By gradients and parameters, along a direction of ones."""
    tx, extra = registry.example(name), registry.extra_arguments(name) | {"grad": ZEROS}
    ones = jax.tree.map(jnp.ones_like, PARAMS)

    def loss(gradients, params):
        return after_two_steps(tx, gradients, params, **extra)

    _, found = jax.jit(lambda: jax.jvp(loss, (ZEROS, PARAMS), (ones, ones)))()
    assert np.isfinite(found) and found != 0


def test_the_derivative_is_right(x64):
    """Against differences, away from zero."""
    params = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
    g = jax.tree.map(lambda p: 0.3 + jnp.abs(p), params)

    def loss(rate):
        return after_two_steps(gt.adam(rate), g, params)

    rate, h = jnp.asarray(0.1), 1e-5
    np.testing.assert_allclose(jax.grad(loss)(rate), (loss(rate + h) - loss(rate - h)) / (2 * h), rtol=1e-8)
