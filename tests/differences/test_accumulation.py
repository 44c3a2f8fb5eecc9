# SPDX-License-Identifier: Apache-2.0
"""Where gradtx's `MultiSteps` differs from optax 0.2.8's; the larger differences are in tests/needs (row 12)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")

BOTH = pytest.mark.parametrize("library", [gt, optax], ids=["gradtx", "optax"])
SKIPS = {gt: gt.skipping.skip_not_finite, optax: optax.skip_not_finite}


@BOTH
def test_float64_is_added_up_in_float64(x64, library):
    """optax does so in float32, unless told to."""
    params = jnp.zeros(2, jnp.float64)
    tx = library.MultiSteps(library.identity(), 2)
    state = tx.init(params)
    for g in (1.0, 1.0 + 2**-40):
        updates, state = tx.update(jnp.full(2, g), state, params)
    exact = bool(np.all(np.asarray(updates) == 1 + 2**-41))
    assert exact == (library is gt) and state.acc_grads.dtype == (jnp.float64 if library is gt else jnp.float32)


@BOTH
def test_the_mean_after_an_update(library):
    params = jnp.zeros(2)
    tx = library.MultiSteps(library.sgd(0.1), 2)
    state = tx.init(params)
    for g in (1.0, 3.0):
        _, state = tx.update(jnp.full(2, g), state, params)
    np.testing.assert_array_equal(state.acc_grads, 2.0 if library is gt else 0.0)


@BOTH
def test_where_the_report_is(library):
    params = jnp.zeros(2)
    tx = library.MultiSteps(library.sgd(0.1), 2, should_skip_update_fn=SKIPS[library])
    _, state = tx.update(jnp.asarray([1.0, jnp.inf]), tx.init(params), params)
    report = state.skip_state.report if library is gt else state.skip_state
    assert jax.tree.map(int, report) == {"should_skip": 1, "num_not_finite": 1}
