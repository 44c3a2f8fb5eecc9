# SPDX-License-Identifier: Apache-2.0
"""The warm-ups of AdEMAMix against the paper's formulas, where t counts from 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.schedules import ademamix_alpha_schedule, ademamix_b3_schedule

COUNTS = np.arange(60)


def test_alpha(x64):
    found = jax.vmap(ademamix_alpha_schedule(5.0, 40))(COUNTS)
    np.testing.assert_allclose(found, np.minimum((COUNTS + 1) * 5.0 / 40, 5.0), rtol=1e-14)
    assert found[39] == 5.0 and found[38] < 5.0


def test_b3(x64):
    start, end, horizon, t = 0.9, 0.9999, 40, np.minimum(COUNTS + 1, 40)
    found = np.asarray(jax.vmap(ademamix_b3_schedule(end, horizon, start))(COUNTS))
    a, b = np.log(start), np.log(end)
    np.testing.assert_allclose(found, np.exp(a * b / ((1 - t / horizon) * b + t / horizon * a)), rtol=1e-14)
    half_lives = np.log(0.5) / np.log(found)
    np.testing.assert_allclose(np.diff(half_lives[:40]), np.diff(half_lives[:2])[0], rtol=1e-9)
    np.testing.assert_allclose(found[39:], end, rtol=1e-15)


def test_the_first_update_gets_the_value_of_step_one():
    horizon = 10
    tx = gradtx.scale_by_ademamix(0.0, 0.0, 0.0, ademamix_alpha_schedule(5.0, horizon), eps=0.0)
    g = jnp.ones(2)
    u, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(u, 1 + 5.0 / horizon, rtol=1e-6)


def test_they_are_values_and_take_arrays():
    assert repr(ademamix_b3_schedule(0.999, 100)) == "ademamix_b3_schedule(0.999, 100)"
    plain = ademamix_b3_schedule(0.999, 100)
    traced = jax.jit(lambda b3, steps: ademamix_b3_schedule(b3, steps)(7))(0.999, 100.0)
    np.testing.assert_allclose(traced, plain(7), rtol=1e-5)


@pytest.mark.parametrize(("b3", "start"), [(1.0, 0.9), (0.99, 0.0), (0.0, 0.9)])
def test_decays_that_have_no_half_life_are_errors(b3, start):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
        ademamix_b3_schedule(b3, 10, start)
