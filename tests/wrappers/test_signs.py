# SPDX-License-Identifier: Apache-2.0
"""Cautious updates and Grams around any rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

G = jnp.array([1.0, -2.0, 3.0, 0.0, -1.0])
U = jnp.array([0.5, 0.5, -0.5, 0.5, -0.5])  # agrees with G at both ends
FIXED = gt.stateless(lambda g, p: U)


def one(tx, g=G):
    return np.asarray(tx.update(g, tx.init(g), g)[0])


def test_cautious_keeps_what_agrees_with_the_gradient():
    np.testing.assert_allclose(one(gt.cautious(FIXED, "none")), [0.5, 0, 0, 0, -0.5])
    np.testing.assert_allclose(one(gt.cautious(FIXED)), np.array([0.5, 0, 0, 0, -0.5]) * 5 / 3, rtol=1e-6)
    np.testing.assert_allclose(one(gt.cautious(FIXED, "mean")), np.array([0.5, 0, 0, 0, -0.5]) * 5 / 2, rtol=1e-6)


def test_signs_come_from_the_gradient_and_sizes_from_the_update():
    np.testing.assert_allclose(one(gt.with_gradient_signs(FIXED)), [0.5, -0.5, 0.5, 0, -0.5])


@pytest.mark.parametrize("wrapper", [gt.cautious, gt.with_gradient_signs])
def test_around_a_recipe_they_are_the_same_with_descent(wrapper):
    inside = gt.chain(wrapper(gt.scale_by_adam()), gt.scale_by_lr(0.1))
    around = wrapper(gt.adam(0.1), descent=True)
    states, g = (inside.init(G), around.init(G)), G
    for _ in range(4):
        u, a = inside.update(g, states[0], G)
        v, b = around.update(g, states[1], G)
        states, g = (a, b), -0.7 * g + 0.1
        np.testing.assert_allclose(u, v, rtol=1e-6)


@pytest.mark.parametrize("wrapper", [gt.cautious, gt.with_gradient_signs])
def test_the_state_is_that_of_the_inner_transformation(wrapper):
    inner = gt.adamw(0.1)
    assert jax.tree.structure(wrapper(inner).init(G)) == jax.tree.structure(inner.init(G))


@pytest.mark.parametrize("wrapper", [gt.cautious, gt.with_gradient_signs])
def test_they_may_be_chained_with_extra_arguments_and_holes(wrapper):
    tx = gt.chain(gt.clip_by_global_norm(1.0), wrapper(gt.chain(gt.scale_by_adam(), gt.add_decayed_weights(0.1))))
    p = {"a": G, "b": None}
    u, _ = tx.update({"a": G, "b": None}, tx.init(p), p, value=1.0)
    assert u["b"] is None and u["a"].shape == G.shape


def test_tiny_numbers_still_have_signs():
    """The product of gradient and update would be 0."""
    g = jnp.full(3, 1e-30)
    np.testing.assert_allclose(one(gt.cautious(gt.scale(1e-5), "none"), g), 1e-35, rtol=1e-5)


def test_complex_updates_are_compared_by_their_angle():
    g = jnp.array([1 + 1j, 1 + 1j])
    tx = gt.cautious(gt.stateless(lambda g, p: jnp.array([1j, -1j])), "none")
    np.testing.assert_allclose(one(tx, g), [1j, 0])
    turned = one(gt.with_gradient_signs(gt.stateless(lambda g, p: jnp.array([2j, -2j]))), g)
    np.testing.assert_allclose(turned, np.sqrt(2) * np.array([1 + 1j, 1 + 1j]), rtol=1e-6)


def test_nothing_agrees():
    for normalization in ("count", "mean", "none"):
        np.testing.assert_array_equal(one(gt.cautious(gt.scale(-1.0), normalization)), np.zeros(5))


def test_errors():
    with pytest.raises(TypeError, match="cautious: inner must be a transformation, got the factory adam"):
        gt.cautious(gt.adam)
    with pytest.raises(ValueError, match="normalization must be one of"):
        gt.cautious(FIXED, "max")
