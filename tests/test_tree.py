# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on trees: what target networks are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

NEW = {"a": jnp.asarray([1.0, 2.0]), "b": (jnp.asarray(3.0),)}
OLD = {"a": jnp.asarray([5.0, -2.0]), "b": (jnp.asarray(0.5),)}


@pytest.mark.parametrize("step_size", [0.0, 0.1, 1.0])
def test_incremental_update(step_size):
    found = gt.tree.incremental_update(NEW, OLD, step_size)
    expected = jax.tree.map(lambda n, o: step_size * np.float64(n) + (1 - step_size) * np.float64(o), NEW, OLD)
    theirs = optax.incremental_update(NEW, OLD, step_size)
    for a, b, c in zip(*map(jax.tree.leaves, (found, expected, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_allclose(a, c, rtol=1e-6)


@pytest.mark.parametrize("steps", [0, 1, 3, 4])
def test_periodic_update(steps):
    for found in (gt.tree.periodic_update(NEW, OLD, steps, 2), jax.jit(gt.tree.periodic_update)(NEW, OLD, steps, 2)):
        theirs = optax.periodic_update(NEW, OLD, jnp.asarray(steps), 2)
        for a, b, c in zip(*map(jax.tree.leaves, (found, NEW if steps % 2 == 0 else OLD, theirs)), strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize(
    "update",
    [
        lambda new, old: gt.tree.incremental_update(new, old, 0.5),
        lambda new, old: gt.tree.periodic_update(new, old, 0, 2),
    ],
)
def test_the_old_tree_decides_what_there_is_and_in_which_dtype(update):
    found = update(
        {"a": jnp.ones(2), "b": None, "c": jnp.ones(2)}, {"a": jnp.ones(2, jnp.bfloat16), "b": 1.0, "c": None}
    )
    assert found["a"].dtype == jnp.bfloat16 and found["b"] == 1.0 and found["c"] is None
    with pytest.raises(ValueError, match=r"the new tensor at \['a'\] has shape \(2,\), its .* has shape \(1,\)"):
        update({"a": jnp.ones(2)}, {"a": jnp.ones(1)})
    with pytest.raises(ValueError, match=r"the trees do not match: old_tensors have \['a'\], which new_tensors lack"):
        update({"b": jnp.ones(2)}, {"a": jnp.ones(1)})


def test_averages_are_rounded_once():
    """In bfloat16, 1 - 0.001 is 1 and 257 is 256."""
    found = gt.tree.incremental_update(jnp.asarray(512.0, jnp.bfloat16), jnp.asarray(256.0, jnp.bfloat16), 0.01)
    np.testing.assert_array_equal(found, jnp.asarray(0.01 * 512 + 0.99 * 256, jnp.bfloat16))


def test_complex_and_traced():
    found = jax.jit(gt.tree.incremental_update)(jnp.asarray([1j]), jnp.asarray([1.0 + 0j]), 0.25)
    np.testing.assert_allclose(found, [0.75 + 0.25j])


def test_bad_period():
    with pytest.raises(ValueError, match="update_period must be at least 1, got 0"):
        gt.tree.periodic_update(NEW, OLD, 3, 0)
