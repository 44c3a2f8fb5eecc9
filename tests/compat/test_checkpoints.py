# SPDX-License-Identifier: Apache-2.0
"""A run changes libraries in its middle: what optax saved gradtx restores, and the other way round."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import parity
from support import problems

STEPS = 20
CALLS = [c for c in parity.CALLS if c.float32]
CANNOT = {"flax": {"add_noise", "noisy_sgd"}, "orbax": {"galore", "scale_by_galore"}}
"""What optax and gradtx have in states and savers cannot write: random keys, and arrays of size zero."""


def through_flax(state, target, folder):
    """What optax's users write with flax: msgpack of nested dictionaries."""
    import flax.serialization

    return flax.serialization.from_bytes(target, flax.serialization.to_bytes(state))


def through_orbax(state, target, folder):
    import orbax.checkpoint

    if not jax.tree.leaves(state):  # orbax writes no empty trees, and there is nothing to write
        return target
    with orbax.checkpoint.StandardCheckpointer() as saver:
        saver.save(folder / "state", state)
        saver.wait_until_finished()
        return saver.restore(folder / "state", jax.tree.map(jnp.zeros_like, target))


SAVERS = {"flax": through_flax, "orbax": through_orbax}


FIRST = {call.name: call for call in reversed(CALLS)}
RUNS = [(c, saver) for c in FIRST.values() for saver in SAVERS if c.name not in CANNOT[saver]]


def libraries(call):
    """The same call in gradtx and in optax."""
    ours = getattr(gradtx, call.name)(*call.args, **call.kwargs)
    return ours, operator.attrgetter(call.at or call.name)(optax)(*call.args, **call.kwargs)


@functools.cache
def gradients():
    rng = np.random.default_rng(1)
    return [jax.tree.map(lambda p: jnp.float32(rng.normal(size=p.shape)), problems.start()) for _ in range(2 * STEPS)]


def run(call, tx, params, state, steps):
    update = jax.jit(tx.update)
    for i in steps:
        extra = call.extra(params) if call.extra else {}
        updates, state = update(gradients()[i], state, params, **extra)
        # Small steps: whole ones of a stage that scales by the parameters double them until Optax's squares overflow.
        params = optax.apply_updates(params, jax.tree.map(lambda u: 0.1 * u, updates))
    return params, state


@pytest.mark.slow
@pytest.mark.parametrize(("call", "saver"), RUNS, ids=[f"{i}-{c.name}-{saver}" for i, (c, saver) in enumerate(RUNS)])
@pytest.mark.usefixtures("standard_promotion")
def test_training_goes_on_as_if_nothing_had_happened(call, saver, tmp_path):
    ours, theirs = libraries(call)
    start = jax.tree.map(jnp.float32, problems.start())
    wanted, _ = run(call, theirs, start, theirs.init(start), range(2 * STEPS))
    tolerance = max(1e-6, call.float32)
    for direction, first, second in (("optax to gradtx", theirs, ours), ("gradtx to optax", ours, theirs)):
        folder = tmp_path / direction
        folder.mkdir()
        params, saved = run(call, first, start, first.init(start), range(STEPS))
        state = SAVERS[saver](saved, second.init(start), folder)
        params, _ = run(call, second, params, state, range(STEPS, 2 * STEPS))
        for n, p in params.items():
            atol = tolerance * max(1, np.abs(wanted[n]).max())
            np.testing.assert_allclose(p, wanted[n], rtol=tolerance, atol=atol, err_msg=f"{direction}: {n}")
