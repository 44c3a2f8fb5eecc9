# SPDX-License-Identifier: Apache-2.0
"""States that gradtx and optax lay out differently, or restored without classes, go on in the other library."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import compat

pytestmark = pytest.mark.usefixtures("standard_promotion")

PARAMS = {"enc": {"w": np.linspace(-1, 1, 6).reshape(2, 3), "b": np.asarray([0.3, -0.7, 1.1])}, "head": np.ones(4)}
CALLS = {
    "MultiSteps": lambda lib: lib.MultiSteps(lib.adam(1e-2), 3),
    "MultiSteps, sum": lambda lib: lib.MultiSteps(lib.adam(1e-2), 3, use_grad_mean=False),
    "MultiSteps, report": lambda lib: lib.MultiSteps(lib.adam(1e-2), 3, should_skip_update_fn=lib.skip_not_finite),
    "MultiSteps in a chain": lambda lib: lib.chain(lib.clip(1.0), lib.MultiSteps(lib.sgd(0.1), 3)),
    "multi_transform": lambda lib: lib.multi_transform(
        {"a": lib.adam(1e-2), "b": lib.sgd(0.1, momentum=0.9)}, {"enc": "a", "head": "b"}
    ),
    "adamw": lambda lib: lib.adamw(1e-2),
    "flatten": lambda lib: lib.chain(lib.clip(1.0), lib.flatten(lib.adam(1e-2))),
    "flatten around masked": lambda lib: lib.flatten(lib.masked(lib.adam(1e-2), all_of)),
    "masked around flatten": lambda lib: lib.masked(lib.flatten(lib.adam(1e-2)), {"enc": True, "head": False}),
}


def all_of(tree):
    return jax.tree.map(lambda _: True, tree)


LBFGS = {"lbfgs": lambda lib: lib.lbfgs(), "lbfgs without a search": lambda lib: lib.lbfgs(0.1, linesearch=None)}


def loss(params):
    return sum(jnp.sum(jnp.cos(x) + x**2) for x in jax.tree.leaves(params))


def train(tx, params, state, steps, sizes=(1, 2, 3, 4)):
    """Gradients change in size from step to step, so that it matters which of them are in a round."""
    for i in steps:
        g = jax.tree.map(lambda x, i=i: sizes[i % 4] * x, jax.grad(loss)(params))
        updates, state = tx.update(g, state, params, grad=g, value=loss(params), value_fn=loss)
        params = optax.apply_updates(params, updates)
    return params, state


def as_flax(state):
    import flax.serialization

    return flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))


def as_lists(state):
    """Dictionaries for named tuples, lists for tuples, None for what is empty: what orbax restores without a target."""
    if hasattr(state, "_fields"):
        return {n: as_lists(getattr(state, n)) for n in state._fields} or None
    if isinstance(state, dict):
        return {n: as_lists(x) for n, x in state.items()}
    return [as_lists(x) for x in state] or None if isinstance(state, tuple | list) else state


def goes_on(make, params, *, at, steps, tolerance, sizes=(1, 2, 3, 4)):
    theirs, ours = (make(lib) for lib in (optax, compat.optax))
    wanted, _ = train(with_extra(theirs), params, theirs.init(params), range(steps), sizes)
    for first, second in ((theirs, ours), (ours, theirs)):
        between, saved = train(with_extra(first), params, first.init(params), range(at), sizes)
        for restored in (saved, as_flax(saved), as_lists(saved)):
            state = compat.carry_state(restored, second, between)
            assert types(state) == types(second.init(params))
            found, _ = train(with_extra(second), between, state, range(at, steps), sizes)
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), found, wanted)


def with_extra(tx):
    return optax.with_extra_args_support(tx) if isinstance(tx, optax.GradientTransformation) else tx


def types(state):
    leaves, treedef = jax.tree.flatten(state)
    return treedef, [(x.shape, x.dtype) for x in leaves]


@pytest.mark.slow
@pytest.mark.parametrize("at", [4, 6])
@pytest.mark.parametrize("name", CALLS)
def test_a_run_goes_on_in_the_other_library(name, at):
    """In the middle of a round, and between two."""
    goes_on(CALLS[name], jax.tree.map(jnp.float32, PARAMS), at=at, steps=9, tolerance=1e-6)


@pytest.mark.slow
def test_lbfgs_of_float32_under_x64():
    """Weights, and what a line search says of itself, are float64 and int64 in optax's state only."""
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.float32, PARAMS)
        # Gradients of another size would be a negative curvature, which gradtx leaves out.
        no_search = {"at": 3, "steps": 8, "tolerance": 1e-5, "sizes": (1, 1, 1, 1)}
        goes_on(lambda lib: lib.lbfgs(0.1, linesearch=None), params, **no_search)
        theirs, ours = optax.lbfgs(), compat.optax.lbfgs()
        for first, second in ((theirs, ours), (ours, theirs)):
            between, saved = train(with_extra(first), params, first.init(params), range(2))
            state = compat.carry_state(as_flax(saved), second, between)
            assert types(state) == types(second.init(params))
            for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(saved), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-6)
            train(with_extra(second), between, state, range(2, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MultiSteps", "multi_transform", *LBFGS])
def test_through_orbax(name, tmp_path):
    import orbax.checkpoint

    params = jax.tree.map(jnp.float32, PARAMS)
    theirs, ours = ({**CALLS, **LBFGS}[name](lib) for lib in (optax, compat.optax))
    for i, (first, second) in enumerate(((theirs, ours), (ours, theirs))):
        between, saved = train(with_extra(first), params, first.init(params), range(4), (1, 1, 1, 1))
        with orbax.checkpoint.StandardCheckpointer() as saver:
            saver.save(tmp_path / str(i), saved)
            saver.wait_until_finished()
            restored = saver.restore(tmp_path / str(i))
        state, direct = (compat.carry_state(x, second, between) for x in (restored, saved))
        jax.tree.map(np.testing.assert_array_equal, state, direct)
        assert types(state) == types(second.init(params))
        after, _ = train(with_extra(second), between, state, range(4, 6), (1, 1, 1, 1))
        assert np.isfinite(loss(after)) and (name != "lbfgs" or loss(after) <= loss(between))


def test_a_dropped_gradient_is_not_counted_by_optax():
    make = CALLS["MultiSteps, report"]
    ours, theirs, p = make(compat.optax), make(optax), jnp.ones(2)
    state = ours.init(p)
    for x in (1.0, jnp.nan, 3.0):
        state = ours.update(jnp.full(2, x), state, p)[1] if x != 3.0 else state
    carried = compat.carry_state(state, theirs, p)
    assert int(carried.mini_step) == 1 and np.array_equal(carried.acc_grads, [1.0, 1.0])
    back = compat.carry_state(carried, ours, p)
    assert int(back.skip_state.kept) == 1 and bool(back.skip_state.report["should_skip"])


def test_errors_name_the_path():
    tx, p = compat.optax.adam(1e-3), {"w": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"at \['0'\] the state lacks nu; it has count, mu"):
        compat.carry_state([{"count": 1, "mu": {"w": jnp.ones(3)}}, None], tx, p)
    with pytest.raises(ValueError, match=r"at \['0'\]\['mu'\]\['w'\] the state must have an array of shape \(3,\)"):
        compat.carry_state(tx.init({"w": jnp.ones(2)}), tx, p)
    with pytest.raises(TypeError, match="carry_state: tx must be a transformation"):
        compat.carry_state((), "adam", p)
