# SPDX-License-Identifier: Apache-2.0
"""AdaGC: tensors whose gradients are 0, what is not finite, and what is published. Formulas: tests/formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.spikes import SHAPES, SPIKES, assert_equal, gradients, norm, run, same_but_what_happened, spoiled

SEQUENCE = gradients()


def test_without_a_warm_up_the_first_norm_is_the_average():
    found, states = run(gt.adagc(1.1, 0.5, 0, 1e9), SEQUENCE[:1], np.float32)
    assert_equal(found, SEQUENCE[:1], rtol=1e-6)
    for n, x in SEQUENCE[0].items():
        np.testing.assert_allclose(states[0].gamma[n], np.linalg.norm(x), rtol=1e-6)


TX = gt.adagc(warmup_steps=10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 5, 40])
def test_what_is_not_finite_does_not_reach_the_averages(value, at):
    tx = gt.adagc(warmup_steps=0 if at == 0 else 10)
    bad = spoiled(SEQUENCE[at], "w", value)
    found, states = run(tx, [*SEQUENCE[:at], bad, *SEQUENCE[at + 1 :]], np.float32)
    _, clean = run(tx, SEQUENCE, np.float32)
    for state in states[at:]:
        assert all(np.isfinite(x) for x in state.gamma.values())
    if at > 10:  # each tensor has its own threshold: the others do not notice
        for n in ("v", "s"):
            np.testing.assert_array_equal(states[-1].gamma[n], clean[-1].gamma[n])
        same_but_what_happened(states[at]._replace(gamma=None), states[at - 1]._replace(gamma=None))
    before = states[at - 1].gamma["w"] if at else 0.0
    np.testing.assert_array_equal(states[at].gamma["w"], before)
    u = found[at]["w"]
    assert np.isnan(u).sum() == (1 if np.isnan(value) else 0)
    if np.isinf(value):
        np.testing.assert_array_equal(u, 0)


def test_a_gradient_of_zero_in_the_warm_up_does_not_stop_its_tensor():
    sequence = [{**g, "v": 0 * g["v"]} if t < 15 else g for t, g in enumerate(SEQUENCE[:30])]
    found, states = run(TX, sequence, np.float32)
    assert states[14].gamma["v"] == 0
    for u, g in zip(found[15:], sequence[15:], strict=True):
        assert np.linalg.norm(u["v"]) > 0.1 * min(1.0, np.linalg.norm(g["v"]))
    assert norm({"v": found[15]["v"]}) <= 1.0  # it starts as in the warm-up


def test_metrics():
    found, states = run(TX, SEQUENCE, np.float32)
    for t in (3, 15, *SPIKES):
        seen = {n: float(x) for n, x in gt.metrics(states[t]).items()}
        np.testing.assert_allclose(seen["grad_norm"], norm(SEQUENCE[t]), rtol=1e-6)
        np.testing.assert_allclose(seen["clip_factor"], norm(found[t]) / norm(SEQUENCE[t]), rtol=1e-5)
        changed = [np.linalg.norm(found[t][n]) < (1 - 1e-6) * np.linalg.norm(SEQUENCE[t][n]) for n in SHAPES]
        np.testing.assert_allclose(seen["clipped_fraction"], np.mean(changed), rtol=1e-6)


def test_metrics_of_a_step_that_is_not_finite_are_those_of_it_only():
    _, states = run(TX, [*SEQUENCE[:20], spoiled(SEQUENCE[20], "w", np.inf), SEQUENCE[21]], np.float32)
    seen, after = gt.metrics(states[20]), gt.metrics(states[21])
    assert seen["grad_norm"] == np.inf and seen["clip_factor"] == 0
    assert all(np.isfinite(x) for x in after.values())


@pytest.mark.slow
def test_half_precision():
    half = [{n: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for n, x in g.items()} for g in SEQUENCE]
    found, states = run(TX, half, jnp.bfloat16)
    wide, _ = run(TX, half, np.float32)
    assert_equal(found, jax.tree.map(lambda u: jnp.asarray(u, jnp.bfloat16), wide), rtol=1e-6)
    assert {x.dtype for x in jax.tree.leaves(states[-1].gamma)} == {jnp.dtype(jnp.float32)}


def test_bad_arguments():
    with pytest.raises(ValueError, match="adagc: lambda_rel must be a number > 0, got 0"):
        gt.adagc(0.0)
    with pytest.raises(ValueError, match=r"adagc: decay must be in \[0, 1\), got 1"):
        gt.adagc(decay=1.0)
