# SPDX-License-Identifier: Apache-2.0
"""Muon: which parameters go where, dtypes, holes, stacks, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx import MuonDimensionNumbers as Numbers

RNG = np.random.default_rng(0)
P = {"w": jnp.ones((4, 3)), "v": jnp.ones(3), "k": jnp.ones((2, 3, 4)), "s": jnp.ones([]), "n": None}
G = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), jnp.float32), P)


def sign_step(u, rate):
    """Whether it is Adam's first step, of size 1 + 9/19 because of Nesterov's momentum."""
    return np.allclose(np.abs(u), rate * (1 + 9 / 19), rtol=1e-4)


def test_two_axes_go_to_muon_and_the_rest_to_adam():
    tx = gt.muon(0.1)
    state = tx.init(P)
    assert [x.shape for x in jax.tree.leaves(state.inner_states["muon"].inner_state[0].mu)] == [(4, 3)]
    u, _ = jax.jit(tx.update)(G, state, P)
    assert all(sign_step(u[n], 0.1) for n in ("v", "k", "s")) and not sign_step(u["w"], 0.1)
    assert u["n"] is None
    values = np.linalg.svd(u["w"] / 0.1, compute_uv=False)
    assert np.all((values > 0.6) & (values < 1.3))


@pytest.mark.slow
def test_dimension_numbers_route():
    spec = {"w": None, "v": None, "k": Numbers(1, 2), "s": None, "n": None}
    for numbers in (spec, lambda params: jax.tree.map(lambda p: Numbers(-2, -1) if p.ndim == 3 else None, params)):
        tx = gt.muon(0.1, muon_weight_dimension_numbers=numbers)
        u, _ = tx.update(G, tx.init(P), P)
        assert sign_step(u["w"], 0.1) and not sign_step(u["k"], 0.1)
        alone = gt.muon(0.1)
        for i in range(2):  # a stack is its matrices
            want, _ = alone.update(G["k"][i], alone.init(P["k"][i]), P["k"][i])
            np.testing.assert_allclose(u["k"][i], want, atol=1e-5)
    flat = gt.muon(0.1, muon_weight_dimension_numbers={"k": Numbers((0, 1), 2), "w": Numbers(1, 0)})
    two = {n: P[n] for n in ("w", "k")}
    u, _ = flat.update({n: G[n] for n in two}, flat.init(two), two)
    want, _ = gt.muon(0.1).update(G["k"].reshape(6, 4), gt.muon(0.1).init(jnp.ones((6, 4))), jnp.ones((6, 4)))
    np.testing.assert_allclose(u["k"].reshape(6, 4), want, atol=1e-5)
    want, _ = gt.muon(0.1).update(G["w"].T, gt.muon(0.1).init(P["w"].T), P["w"].T)
    np.testing.assert_allclose(u["w"].T, want, atol=1e-5)
    vector = gt.scale_by_muon(((1.5, -0.5, 0.0),) * 30, weight_dimension_numbers=Numbers(0, ()))
    u, _ = vector.update(G["v"], vector.init(P["v"]))
    np.testing.assert_allclose(u, G["v"] / np.linalg.norm(G["v"]), atol=1e-5)


def test_optax_dimension_numbers_are_understood():
    theirs = optax.contrib.MuonDimensionNumbers(1, 0)
    a, b = (gt.scale_by_muon(weight_dimension_numbers=n) for n in (theirs, Numbers(1, 0)))
    np.testing.assert_array_equal(a.update(G["w"], a.init(P["w"]))[0], b.update(G["w"], b.init(P["w"]))[0])


def test_dtypes():
    low, g = jnp.ones((4, 3), jnp.bfloat16), G["w"].astype(jnp.bfloat16)
    for tx, mu in ((gt.scale_by_muon(), jnp.float32), (gt.scale_by_muon(mu_dtype=jnp.bfloat16), jnp.bfloat16)):
        u, state = tx.update(g, tx.init(low))
        assert u.dtype == jnp.bfloat16 and state.mu.dtype == mu
    fast, exact = gt.scale_by_muon(ns_dtype=jnp.bfloat16), gt.scale_by_muon()
    u, _ = fast.update(G["w"], fast.init(P["w"]))
    want, _ = exact.update(G["w"], exact.init(P["w"]))
    assert u.dtype == jnp.float32
    np.testing.assert_allclose(u, want, atol=0.05)
    assert np.any(np.abs(u - want) > 1e-4)
    half = gt.scale_by_muon()
    u, _ = half.update(jnp.full((4, 3), 6e4, jnp.float16), half.init(jnp.ones((4, 3), jnp.float16)))
    assert np.all(np.isfinite(u))


def test_a_missing_gradient_changes_nothing():
    tx = gt.muon(0.1)
    state = tx.init(P)
    u, new = tx.update({**G, "w": None}, state, P)
    assert u["w"] is None
    np.testing.assert_array_equal(new.inner_states["muon"].inner_state[0].mu["w"], 0)


def test_schedules_and_shapes():
    tx = gt.scale_by_matrix_shape()
    u, _ = tx.update({"a": jnp.ones((2, 8)), "b": jnp.ones((8, 2))}, tx.init(P))
    assert u["a"][0, 0] == 2 and u["b"][0, 0] == 1
    tx = gt.scale_by_matrix_shape(0.2)
    u, _ = tx.update(jnp.ones((4, 9)), tx.init(P))
    np.testing.assert_allclose(u, 0.6, rtol=1e-6)
    scheduled = gt.scale_by_muon(beta=gt.polynomial_schedule(0.5, 0.9, 1, 10))
    u, state = jax.jit(scheduled.update)(G["w"], scheduled.init(P["w"]))
    assert type(state).__name__ == "MuonState" and state.count == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: gt.muon(0.1, "cubic"), "ns_coeffs must be one of"),
        (lambda: gt.muon(0.1, equilibrate="rows"), "equilibrate must be one of"),
        (lambda: gt.muon(0.1, renormalize="rows"), "renormalize must be one of"),
        (lambda: gt.muon(0.1, "aol", preconditioning="spectral"), "ns_coeffs='aol' has preconditioning 'aol'"),
        (lambda: gt.muon(0.1, scaling="muP"), "scaling must be one of"),
        (lambda: gt.muon(0.1, consistent_rms=0.2, scaling="none"), "give consistent_rms or scaling='none', not both"),
        (lambda: gt.muon(0.1, (1.0, 2.0)), r"shape \(3,\) or \(steps, 3\)"),
        (lambda: gt.muon(0.1, preconditioning="none"), "preconditioning must be one of"),
        (lambda: gt.scale_by_muon().init({"v": jnp.ones(3)}), r"\['v'\].*does not name axes of the shape \(3,\)"),
        (lambda: gt.scale_by_muon(weight_dimension_numbers=Numbers(0, 0)).init(jnp.ones((3, 2))), "each once"),
        (lambda: gt.scale_by_muon(weight_dimension_numbers={"w": None}).init({"w": P["w"]}), "nothing for"),
        (lambda: gt.scale_by_muon().update(jnp.ones((2, 2)), gt.scale_by_muon().init(P["w"])), "made for"),
    ],
)
def test_errors(call, said):
    with pytest.raises(ValueError, match=said):
        call()
