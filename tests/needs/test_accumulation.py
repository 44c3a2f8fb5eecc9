# SPDX-License-Identifier: Apache-2.0
"""Gradient accumulation: wasted work, one bad micro-batch that poisons the run, low precision, counters that drift."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")

PARAMS = {"w": jnp.ones(3)}
BOTH = pytest.mark.parametrize("library", [gt, optax], ids=["gradtx", "optax"])
SKIPS = {gt: gt.skipping.skip_not_finite, optax: optax.skip_not_finite}


def spy(library, seen):
    """A transformation that notes the dtype of its gradients when it is traced and a call when it runs."""

    def update(updates, state, params=None):
        jax.debug.callback(lambda: seen.append(updates["w"].dtype))
        return updates, state

    return library.GradientTransformation(lambda params: (), update)


def run(tx, gradients, params=PARAMS):
    state, found = tx.init(params), []
    for g in gradients:
        updates, state = tx.update({"w": g}, state, params)
        found.append(np.asarray(updates["w"], np.float32))
    jax.effects_barrier()
    return found, state


@BOTH
def test_how_often_the_optimizer_runs_in_16_micro_steps(library):
    """For Muon or SOAP this is the price of a step; two are needed."""
    seen = []
    tx = library.MultiSteps(spy(library, seen), 8)
    step = jax.jit(lambda s: jax.lax.scan(lambda s, _: (tx.update(PARAMS, s, PARAMS)[1], None), s, length=16)[0])
    jax.block_until_ready(step(tx.init(PARAMS)))
    jax.effects_barrier()
    assert len(seen) == (2 if library is gt else 16)


@BOTH
def test_one_infinity_in_one_micro_batch(library):
    one = jnp.ones(3)
    updates, state = run(library.MultiSteps(library.sgd(1.0), 2), [one * jnp.inf, one, one, one, one, one])
    finite = [bool(np.all(np.isfinite(u))) for u in updates]
    if library is gt:
        assert all(finite)
        np.testing.assert_allclose(updates[1::2], -1.0)
        assert int(state.skip_state.skipped) == 1
    else:  # not even the updates that should be zero are, and it never ends
        assert finite == [False] * 6
        assert np.all(np.isnan(state.acc_grads["w"]))


@BOTH
def test_what_the_optimizer_gets_for_bfloat16_gradients(library):
    seen = []
    bf16 = {"w": jnp.ones(3, jnp.bfloat16)}
    run(library.MultiSteps(spy(library, seen), 1), [bf16["w"]], bf16)
    assert {d.name for d in seen} == ({"float32"} if library is gt else {"bfloat16"})


@BOTH
def test_whose_round_ends_at_the_caller_s_step(library):
    """Steps are of 4 micro-batches. optax, asked to drop one, is a micro-batch late from then on."""
    tx = library.MultiSteps(library.sgd(1.0), 4, should_skip_update_fn=SKIPS[library])
    one, ends, state = jnp.ones(3), [], tx.init(PARAMS)
    for i in range(12):
        _, state = tx.update({"w": one * jnp.nan if i == 2 else one}, state, PARAMS)
        ends += [i + 1] if tx.has_updated(state) else []
    assert ends == ([4, 8, 12] if library is gt else [5, 9])
