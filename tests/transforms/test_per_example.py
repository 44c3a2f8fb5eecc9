# SPDX-License-Identifier: Apache-2.0
"""Clipping of the gradients of single examples, against NumPy and optax."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

RNG = np.random.default_rng(5)
GRADS = {n: RNG.normal(size=shape) for n, shape in {"a": (5, 3), "b": (5, 2, 2), "c": (5,)}.items()}
CLIPS = {
    "global": lambda lib, g, c: lib.per_example_global_norm_clip(g, c),
    "uniform": lambda lib, g, c: lib.per_example_layer_norm_clip(g, c),
    "by size": lambda lib, g, c: lib.per_example_layer_norm_clip(g, c, uniform=False),
}


def formula(kind, limit):
    flat = {n: g.reshape(5, -1) for n, g in GRADS.items()}
    squares = {n: np.sum(g**2, axis=1) for n, g in flat.items()}
    if kind == "global":
        limits = dict.fromkeys(flat, limit)
        norms = dict.fromkeys(flat, np.sqrt(sum(squares.values())))
    else:
        sizes = {n: g.shape[1] for n, g in flat.items()}
        parts = {n: 1 / 3 if kind == "uniform" else sizes[n] / sum(sizes.values()) for n in flat}
        limits = {n: limit * np.sqrt(parts[n]) for n in flat}
        norms = {n: np.sqrt(s) for n, s in squares.items()}
    sums = {n: np.einsum("i,i...->...", np.minimum(1, limits[n] / norms[n]), g) for n, g in GRADS.items()}
    counts = {n: int(np.sum(norms[n] > limits[n])) for n in flat}
    return sums, counts["a"] if kind == "global" else counts


@pytest.mark.parametrize("limit", [0.5, 2.0, 100.0])
@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("jit", [False, True])
def test_formula(kind, limit, jit, x64):
    grads = jax.tree.map(jnp.asarray, GRADS)
    call = (
        (lambda g: CLIPS[kind](gt.aggregating, g, limit))
        if not jit
        else jax.jit(lambda g: CLIPS[kind](gt.aggregating, g, limit))
    )
    found, expected = call(grads), formula(kind, limit)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    chex.assert_trees_all_close(found, expected, rtol=1e-13, atol=1e-13)
    assert {x.dtype for x in jax.tree.leaves(found[1])} == {np.dtype("int32")}


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.5, 2.0, 100.0])
@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.usefixtures("standard_promotion")
def test_the_same_numbers_as_optax(kind, limit):
    grads = jax.tree.map(jnp.float32, GRADS)
    found, theirs = (CLIPS[kind](lib, grads, limit) for lib in (gt.aggregating, optax))
    assert jax.tree.structure(found) == jax.tree.structure(theirs)
    chex.assert_trees_all_close(found, theirs, rtol=2e-6, atol=1e-6)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, theirs)


@pytest.mark.parametrize("kind", CLIPS)
def test_norms_of_float16_gradients_do_not_overflow(kind):
    grads = jnp.full((4, 1000), 300.0, jnp.float16)
    sums, count = CLIPS[kind](gt.aggregating, grads, 1.0)
    np.testing.assert_allclose(sums, np.full(1000, 4 * 1000**-0.5), rtol=1e-5)
    assert count == 4


@pytest.mark.parametrize("kind", CLIPS)
def test_a_clipped_example_is_within_the_limit(kind):
    one = jax.tree.map(lambda g: jnp.asarray(g[:1] * 100, jnp.float32), GRADS)
    sums, _ = CLIPS[kind](gt.aggregating, one, 0.7)
    np.testing.assert_allclose(gt.global_norm(sums), 0.7, rtol=1e-5)


@pytest.mark.parametrize("kind", CLIPS)
def test_zero_gradients_none_and_empty_trees(kind):
    sums, count = CLIPS[kind](gt.aggregating, {"a": jnp.zeros((2, 3)), "none": None}, 1.0)
    np.testing.assert_array_equal(sums["a"], np.zeros(3))
    assert sums["none"] is None and sum(jax.tree.leaves(count)) == 0
    assert CLIPS[kind](gt.aggregating, {}, 1.0)[0] == {}


def test_layers_that_are_none_do_not_take_a_share():
    grads = {"a": jnp.float32(GRADS["a"]), "none": None}
    with_none, _ = gt.aggregating.per_example_layer_norm_clip(grads, 1.0)
    alone, _ = gt.aggregating.per_example_layer_norm_clip({"a": grads["a"]}, 1.0)
    np.testing.assert_array_equal(with_none["a"], alone["a"])


def test_derivatives_at_zero_are_finite():
    slope = jax.grad(lambda g: jnp.sum(gt.aggregating.per_example_global_norm_clip(g, 1.0)[0]))(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(slope, np.ones((2, 3)))


@pytest.mark.parametrize("kind", CLIPS)
def test_bad_input(kind):
    name = "per_example_global_norm_clip" if kind == "global" else "per_example_layer_norm_clip"
    with pytest.raises(ValueError, match=rf"{name}: the gradients must have the same number of examples.*\['b'\]"):
        CLIPS[kind](gt.aggregating, {"b": jnp.ones((4, 2)), "w": jnp.ones((5, 2))}, 1.0)
    with pytest.raises(ValueError, match=rf"{name}: the gradient at \['b'\] has shape \(\)"):
        CLIPS[kind](gt.aggregating, {"b": jnp.ones([])}, 1.0)
    with pytest.raises(ValueError, match=rf"{name}: (global_)?l2_norm_clip must be a number > 0, got -1.0"):
        CLIPS[kind](gt.aggregating, {"b": jnp.ones((4, 2))}, -1.0)
    for limit in ("1", jnp.ones(2), lambda t: 1.0):
        with pytest.raises(TypeError, match=rf"{name}: (global_)?l2_norm_clip must be a number"):
            CLIPS[kind](gt.aggregating, {"b": jnp.ones((4, 2))}, limit)


def test_the_stage_without_noise_is_the_mean_of_the_function():
    params = {n: jnp.zeros(g.shape[1:]) for n, g in GRADS.items()}
    grads = jax.tree.map(jnp.float32, GRADS)
    tx = gt.differentially_private_aggregate(1.5, 0.0, 3)
    updates, _ = tx.update(grads, tx.init(params), params)
    sums, _ = gt.aggregating.per_example_global_norm_clip(grads, 1.5)
    jax.tree.map(lambda u, s: np.testing.assert_allclose(u, s / 5, rtol=1e-6), updates, sums)
