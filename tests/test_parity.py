# SPDX-License-Identifier: Apache-2.0
"""The shared names agree with optax 0.2.8: updates to rounding, and the layout of the state."""

import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import parity
from support import problems
from support.differential import EXCEPTIONS

NOT_DRAWN = {name.rpartition(".")[2] for name in EXCEPTIONS}
PRECISIONS = [(c, jnp.float64) for c in parity.CALLS]
PRECISIONS += [(c, jnp.float32) for c in parity.CALLS if c.float32 and c.name in NOT_DRAWN]
"""In float32, tests/compat/test_differential.py compares all others, with arguments drawn at random."""
IDS = [f"{i}-{c.name}-{d.__name__}" for i, (c, d) in enumerate(PRECISIONS)]


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def layout(state):
    """Shapes and dtypes of a state by names, empty parts too: what a checkpoint holds."""
    if state is None or hasattr(state, "dtype"):
        return state if state is None else (state.shape, state.dtype)
    if hasattr(state, "_fields"):
        return {name: layout(getattr(state, name)) for name in state._fields}
    if isinstance(state, dict):
        return {key: layout(x) for key, x in state.items()}
    return [layout(x) for x in state]


@pytest.mark.slow
@pytest.mark.parametrize(("call", "dtype"), PRECISIONS, ids=IDS)
@pytest.mark.usefixtures("standard_promotion")
def test_same_numbers_and_same_state(call, dtype):
    with jax.enable_x64(dtype is jnp.float64):
        ours = getattr(gradtx, call.name)(*call.args, **call.kwargs)
        theirs = operator.attrgetter(call.at or call.name)(optax)(*call.args, **call.kwargs)
        params = jax.tree.map(dtype, problems.start())
        state, their_state = ours.init(params), theirs.init(params)
        assert layout(state) == layout(their_state)
        rng = np.random.default_rng(1)
        update, their_update = jax.jit(ours.update), jax.jit(theirs.update)
        tolerance = call.float64 if dtype is jnp.float64 else call.float32
        for _ in range(30):
            grads = jax.tree.map(lambda p: dtype(rng.normal(size=p.shape)), params)
            extra = call.extra(params) if call.extra else {}
            updates, state = update(grads, state, params, **extra)
            their_updates, their_state = their_update(grads, their_state, params, **extra)
            assert types(updates) == types(their_updates)
            for n, u in updates.items():
                np.testing.assert_allclose(u, their_updates[n], rtol=tolerance, atol=min(tolerance, 1e-6), err_msg=n)
            params = optax.apply_updates(params, their_updates)
        assert layout(state) == layout(their_state)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_states_are_interchangeable():
    params = jax.tree.map(jnp.float32, problems.start())
    grads = jax.tree.map(jnp.cos, params)
    ours, theirs = gradtx.adamw(0.01), optax.adamw(0.01)
    _, state = theirs.update(grads, theirs.init(params), params)
    updates, new_state = ours.update(grads, state, params)
    their_updates, their_state = theirs.update(grads, state, params)
    assert jax.tree.structure(new_state) == jax.tree.structure(their_state)
    chex.assert_trees_all_close(updates, their_updates, atol=1e-6, rtol=1e-7)
