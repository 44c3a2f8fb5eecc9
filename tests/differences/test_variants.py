# SPDX-License-Identifier: Apache-2.0
"""Where optax 0.2.8 differs from the papers of Adam's variants: what it does, and what gradtx does instead."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.compat import optax as compat

pytestmark = pytest.mark.usefixtures("standard_promotion")

RNG = np.random.default_rng(5)
TALL, WIDE = RNG.normal(size=(8, 6, 3)), RNG.normal(size=(8, 3, 6))


def run(tx, gradients):
    params = jnp.ones(gradients.shape[1:])
    state, found = tx.init(params), []
    for g in gradients:
        updates, state = tx.update(jnp.asarray(g), state, params)
        found.append(np.asarray(updates))
    return np.stack(found)


def galore(gradients, rank, left):
    """Adam on PᵀG or GP, projected back. One basis: how a second one continues depends on LAPACK's signs."""
    u, _, vt = np.linalg.svd(gradients[0], full_matrices=False)
    basis = u[:, :rank] if left else vt[:rank].T
    m = v = 0.0
    found = []
    for t, g in enumerate(gradients, 1):
        r = basis.T @ g if left else g @ basis
        m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r**2
        n = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        found.append(basis @ n if left else n @ basis.T)
    return np.stack(found)


@pytest.mark.parametrize("gradients", [TALL, WIDE], ids=["tall", "wide"])
def test_galore_projects_the_larger_side_and_the_paper_the_smaller(gradients, x64):
    tall = gradients is TALL
    smaller, larger = galore(gradients, 2, left=not tall), galore(gradients, 2, left=tall)
    assert np.max(np.abs(smaller - larger)) > 0.1
    np.testing.assert_allclose(run(optax.contrib.scale_by_galore(2), gradients), larger, atol=1e-5)
    np.testing.assert_allclose(run(gt.scale_by_galore(2), gradients), larger, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(run(gt.scale_by_galore(2, side="smaller"), gradients), smaller, atol=1e-10)


def test_galore_takes_the_singular_vectors_in_float32(x64):
    """Also of gradients in float64: the projector is off by 1e-8, where gradtx's is orthonormal to 1e-15."""
    g = jnp.asarray(TALL[0])
    for tx, least, most in ((optax.contrib.scale_by_galore(2), 1e-9, 1e-5), (gt.scale_by_galore(2), 0, 1e-13)):
        _, state = tx.update(g, tx.init(g), g)
        error = np.max(np.abs(state.projector.T @ state.projector - np.eye(2)))
        assert least <= error < most


def test_galore_has_no_place_for_missing_gradients():
    p = {"w": jnp.ones((4, 3)), "none": None}
    tx = optax.contrib.scale_by_galore(2)
    with pytest.raises(AttributeError):
        tx.update(p, tx.init(p), p)
    tx = gt.scale_by_galore(2)
    u, _ = tx.update(p, tx.init(p), p)
    assert u["none"] is None and np.all(np.isfinite(u["w"]))


def test_ademamix_loses_the_dtype_of_its_moments():
    """optax stores all three moments in mu_dtype at first and in the parameters' dtype from the first update on."""
    p = jnp.ones(3)

    def dtypes(tx):
        state = tx.init(p)
        _, after = tx.update(p, state, p)
        return [[getattr(s, n).dtype.name for n in ("m1", "m2", "nu")] for s in (state, after)]

    assert dtypes(optax.contrib.scale_by_ademamix(mu_dtype=jnp.bfloat16)) == [["bfloat16"] * 3, ["float32"] * 3]
    assert dtypes(gt.scale_by_ademamix(mu_dtype=jnp.bfloat16)) == [["bfloat16", "bfloat16", "float32"]] * 2


def test_half_precision_of_the_moments():
    """optax keeps GaLore's moments and bases of bfloat16 parameters in bfloat16, gradtx in float32."""
    p = jnp.ones((4, 3), jnp.bfloat16)

    def dtypes(tx):
        return {x.dtype.name for x in jax.tree.leaves(tx.init(p)) if x.ndim == 2}

    assert dtypes(optax.contrib.scale_by_galore(2)) == {"bfloat16"}
    assert dtypes(gt.scale_by_galore(2)) == {"float32"}


@pytest.mark.parametrize(
    ("name", "g", "p", "theirs"),
    [
        ("adam", jnp.bfloat16, jnp.float32, jnp.float32),
        ("adam", jnp.bfloat16, jnp.bfloat16, jnp.bfloat16),
        ("sgd", jnp.bfloat16, jnp.float32, jnp.bfloat16),
        ("sign_sgd", jnp.bfloat16, jnp.float32, jnp.bfloat16),
        ("schedule_free_sgd", jnp.float32, jnp.bfloat16, jnp.bfloat16),
        ("novograd", jnp.float32, jnp.bfloat16, TypeError),
    ],
)
def test_the_dtype_of_updates(name, g, p, theirs):
    def found(lib):
        tx = getattr(lib.contrib if name == "schedule_free_sgd" else lib, name)(0.1)
        g_, p_ = jnp.ones(3, g), jnp.ones(3, p)
        return jax.eval_shape(lambda: tx.update(g_, tx.init(p_), p_)[0]).dtype

    assert found(compat) == jnp.promote_types(g, p)
    if theirs is TypeError:
        with pytest.raises(TypeError):
            found(optax)
    else:
        assert found(optax) == theirs
