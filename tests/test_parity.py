# SPDX-License-Identifier: Apache-2.0
"""The shared names agree with optax 0.2.8: updates in float32 to 1e-6, and the layout of the state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import problems

import gradtx


def halving(count):
    return 0.01 / (1 + count / 10)


def matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


# name, positional arguments, keyword arguments
CALLS = [
    ("identity", (), {}),
    ("scale", (0.3,), {}),
    ("scale_by_learning_rate", (0.3,), {}),
    ("scale_by_learning_rate", (None,), {}),
    ("scale_by_learning_rate", (halving,), {"flip_sign": False}),
    ("scale_by_schedule", (halving,), {}),
    ("trace", (0.9,), {}),
    ("trace", (0.9, True), {}),
    ("scale_by_rms", (), {}),
    ("scale_by_rms", (0.8, 1e-3, 0.5, False, True), {}),
    ("scale_by_stddev", (0.8, 1e-3), {}),
    ("scale_by_stddev", (0.8, 1e-3, 0.5, False), {}),
    ("scale_by_rss", (), {}),
    ("scale_by_rss", (0.0, 1e-3), {}),
    ("scale_by_adam", (), {}),
    ("scale_by_adam", (0.8, 0.95, 1e-4, 1e-4), {"nesterov": True}),
    ("add_decayed_weights", (0.1,), {}),
    ("add_decayed_weights", (halving,), {}),
    ("add_decayed_weights", (0.1, matrices), {}),
    ("clip", (0.3,), {}),
    ("clip_by_global_norm", (0.5,), {}),
    ("clip_by_global_norm", (500.0,), {}),
    ("clip_by_block_rms", (0.3,), {}),
    ("sgd", (0.01,), {}),
    ("sgd", (halving,), {"momentum": 0.9}),
    ("sgd", (0.01,), {"momentum": 0.9, "nesterov": True}),
    ("adam", (0.01,), {}),
    ("adam", (halving, 0.8, 0.99, 1e-7, 1e-8), {}),
    ("adam", (0.01,), {"nesterov": True}),
    ("adamw", (0.01,), {"weight_decay": 0.1}),
    ("adamw", (halving,), {"weight_decay": 0.1, "mask": matrices}),
    ("nadam", (0.01,), {}),
    ("nadamw", (0.01,), {}),
    ("adagrad", (0.01,), {}),
    ("adagrad", (0.01, 0.0, 1e-4), {}),
    ("rmsprop", (0.01,), {}),
    ("rmsprop", (0.01, 0.8, 1e-3, 0.5, False), {"momentum": 0.9}),
    ("rmsprop", (0.01,), {"eps": 1e-3, "centered": True, "momentum": 0.9, "nesterov": True}),
    ("rmsprop", (0.01,), {"bias_correction": True}),
]


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def layout(state):
    """Paths, shapes and dtypes of a state: what a checkpoint holds."""
    return [(jax.tree_util.keystr(k), x.shape, x.dtype) for k, x in jax.tree_util.tree_leaves_with_path(state)]


# The variance of one value is rounding, and the first update that divided by its root is a different large number.
ONLY_IN_FLOAT64 = [("scale_by_stddev", (0.8, 1e-3, 0.0, True, True), {})]

FLOAT32 = [(*c, jnp.float32, 2e-6) for c in CALLS]
FLOAT64 = [(*c, jnp.float64, 1e-10) for c in CALLS + ONLY_IN_FLOAT64]


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "dtype", "tolerance"),
    FLOAT32 + FLOAT64,
    ids=[f"{i}-{c[0]}-{c[3].__name__}" for i, c in enumerate(FLOAT32 + FLOAT64)],
)
@pytest.mark.usefixtures("standard_promotion")
def test_same_numbers_and_same_state(name, args, kwargs, dtype, tolerance):
    with jax.enable_x64(dtype is jnp.float64):
        ours, theirs = getattr(gradtx, name)(*args, **kwargs), getattr(optax, name)(*args, **kwargs)
        params = jax.tree.map(dtype, problems.start())
        state, their_state = ours.init(params), theirs.init(params)
        assert layout(state) == layout(their_state)
        rng = np.random.default_rng(1)
        update, their_update = jax.jit(ours.update), jax.jit(theirs.update)
        if name == "scale_by_adam" and dtype is jnp.float32:
            tolerance = 5e-5  # optax computes 1 - b**t in float32, which is off by 6e-5 at the first steps
        for _ in range(30):
            grads = jax.tree.map(lambda p: dtype(rng.normal(size=p.shape)), params)
            updates, state = update(grads, state, params)
            their_updates, their_state = their_update(grads, their_state, params)
            assert types(updates) == types(their_updates)
            for n, u in updates.items():
                np.testing.assert_allclose(u, their_updates[n], rtol=tolerance, atol=min(tolerance, 1e-6), err_msg=n)
        assert layout(state) == layout(their_state)


@pytest.mark.usefixtures("standard_promotion")
def test_states_are_interchangeable():
    params = jax.tree.map(jnp.float32, problems.start())
    grads = jax.tree.map(jnp.cos, params)
    ours, theirs = gradtx.adamw(0.01), optax.adamw(0.01)
    _, state = theirs.update(grads, theirs.init(params), params)
    updates, new_state = ours.update(grads, state, params)
    their_updates, their_state = theirs.update(grads, state, params)
    assert jax.tree.structure(new_state) == jax.tree.structure(their_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), updates, their_updates)
