# SPDX-License-Identifier: Apache-2.0
"""State and parameters share no memory, so both can be donated.

The law for every factory is the clause "donation safe" of `check_contract`, in tests/test_laws.py. Here it is shown on
optax, and donated in earnest.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.testing._compare import buffers

PARAMS = {"w": jnp.asarray([[1.0, -2.0, 0.5], [0.3, 0.1, -1.0]]), "b": jnp.asarray([0.5, -0.5, 2.0])}


def fresh():
    return jax.tree.map(jnp.array, PARAMS)


def shared(*trees):
    """The paths of leaves whose memory is that of an earlier leaf."""
    seen, found = set(), []
    for path, address in (pair for tree in trees for pair in buffers(tree)):
        found += [path] if address in seen else []
        seen.add(address)
    return found


RECIPES = {
    "schedule_free": lambda: gt.schedule_free_adamw(0.1),
    "lookahead": lambda: gt.lookahead(gt.adam(0.1), 2, 0.5, True),
    "sam": lambda: gt.sam(gt.adam(0.1), gt.chain(gt.normalize(), gt.sgd(0.1)), alpha=0.1),
    "averages": lambda: gt.chain(gt.adam(0.1), gt.params_ema(0.9), gt.lawa(3)),
    "early stopping": lambda: gt.chain(gt.adam(0.1), gt.early_stopping(2, keep_best=True)),
    "towards the start": lambda: gt.chain(gt.dog(), gt.decay_weights(0.1, towards_initial=True)),
    "mechanic": lambda: gt.mechanize(gt.adam(0.1)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_state_and_parameters_can_be_donated(name):
    tx = RECIPES[name]()

    def step(params, state, g):
        updates, state = tx.update(g, state, params, value=jnp.sum(g["b"]))
        return gt.apply_updates(params, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1))
    params, other = fresh(), fresh()
    state, other_state = tx.init(params), tx.init(other)
    assert shared(params, state) == []
    for i in range(3):
        g = jax.tree.map(lambda p, i=i: jnp.cos(p + i), PARAMS)
        params, state = donating(params, state, g)
        other, other_state = step(other, other_state, g)
        assert shared(other, other_state, g) == []
    for a, b in zip(*map(jax.tree.leaves, ((params, state), (other, other_state))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_optax_shares_memory_here_and_there():
    pair = optax.LookaheadParams.init_synced(fresh())
    assert shared(pair) != []
    step = jax.jit(lambda pair: jax.tree.map(jnp.sin, pair), donate_argnums=0)
    with pytest.raises(Exception, match="donate"):
        jax.block_until_ready(step(pair))
    assert shared(gt.states.LookaheadParams.init_synced(fresh())) == []
