# SPDX-License-Identifier: Apache-2.0
"""Moving averages of trees, against NumPy in double precision and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import tree

pytestmark = pytest.mark.usefixtures("standard_promotion")

RNG = np.random.default_rng(2)
G = {"a": jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32), "b": (jnp.asarray(RNG.normal(), jnp.float32), None)}
M = jax.tree.map(jnp.abs, G)

CALLS = [
    ("update_moment", (0.9, 1), lambda g, m: 0.9 * m + 0.1 * g),
    ("update_moment", (0.9, 2), lambda g, m: 0.9 * m + 0.1 * g**2),
    ("update_moment", (0.9, 3), lambda g, m: 0.9 * m + 0.1 * g**3),
    ("update_moment_per_elem_norm", (0.9, 2), lambda g, m: 0.9 * m + 0.1 * g**2),
    ("update_moment_per_elem_norm", (0.9, 4), lambda g, m: 0.9 * m + 0.1 * g**4),
    ("update_infinity_moment", (0.9, 0.1), lambda g, m: np.maximum(0.9 * m, np.abs(g) + 0.1)),
]


@pytest.mark.parametrize(("name", "rest", "formula"), CALLS, ids=[f"{c[0]}-{c[1][1]}" for c in CALLS])
@pytest.mark.parametrize("compiled", [False, True])
def test_numbers(name, rest, formula, compiled):
    f = jax.jit(getattr(tree, name), static_argnums=3) if compiled else getattr(tree, name)
    expected = jax.tree.map(lambda g, m: formula(np.float64(g), np.float64(m)), G, M)
    theirs = getattr(optax.tree, name)(G, M, *rest)
    for a, b, c in zip(*map(jax.tree.leaves, (f(G, M, *rest), expected, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_allclose(a, c, rtol=1e-6)


def test_double_precision(x64):
    g, m = np.asarray([0.3, -0.7]), np.asarray([0.2, 0.1])
    np.testing.assert_allclose(tree.update_moment(g, m, 0.999, 2), 0.999 * m + (1 - 0.999) * g**2, rtol=1e-15)


@pytest.mark.parametrize("name", ["update_moment", "update_moment_per_elem_norm", "update_infinity_moment"])
def test_moments_keep_their_dtype_and_stay_without_an_update(name):
    moments = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2), "c": None}
    found = getattr(tree, name)({"a": jnp.ones(2), "b": None, "c": jnp.ones(2)}, moments, 0.9, 2)
    assert found["a"].dtype == jnp.bfloat16 and found["c"] is None
    np.testing.assert_array_equal(found["b"], [1, 1])
    with pytest.raises(ValueError, match=rf"{name}: the update at \['a'\] has shape \(1, 2\)"):
        getattr(tree, name)({"a": jnp.ones((1, 2))}, {"a": jnp.ones(2)}, 0.9, 2)


def test_complex_gradients():
    z, m = jnp.asarray([1 + 1j]), jnp.asarray([1.0])
    for order in (2, 3, 4):
        np.testing.assert_allclose(
            tree.update_moment_per_elem_norm(z, m, 0.9, order),
            optax.tree.update_moment_per_elem_norm(z, m, 0.9, order),
            rtol=1e-6,
        )
    np.testing.assert_allclose(tree.update_moment(z, z, 0.9, 2), 0.9 * (1 + 1j) + 0.1 * (1 + 1j) ** 2, rtol=1e-6)
    np.testing.assert_allclose(tree.update_infinity_moment(z, m, 0.9, 0.0), [2**0.5], rtol=1e-6)


def test_bias_correction():
    for count in (1, 3, 1000):
        found = tree.bias_correction(G, 0.999, jnp.asarray(count))
        for a, g in zip(jax.tree.leaves(found), jax.tree.leaves(G), strict=True):
            np.testing.assert_allclose(a, np.float64(g) / (1 - 0.999**count), rtol=1e-6)
