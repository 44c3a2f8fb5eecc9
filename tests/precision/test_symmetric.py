# SPDX-License-Identifier: Apache-2.0
"""Symmetric matrices kept as one half: to the bit, in half of the bytes, and only where they are symmetric."""

from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import gradtx as gt
from gradtx.precision import int8, symmetric
from gradtx.sharding import bytes_per_device, init_sharded, zero
from gradtx.testing import check_contract
from support.meshes import mesh, put

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 35).reshape(5, 7), "b": jnp.linspace(0.5, 1.0, 6)}
GRADIENTS = [jax.tree.map(lambda p, t=t: jnp.sin(9.0 * t * p + 0.1 * t), PARAMS) for t in (1, 2, 3)]
SHAMPOO = gt.scale_by_shampoo(eps=1e-2)


def kept(tx: Any, *names: str) -> Any:
    return gt.stored(tx, dict.fromkeys(names, symmetric()), min_size=0)


@pytest.mark.parametrize("lead", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("n", [0, 1, 2, 5, 8])
def test_every_bit_comes_back(n: int, lead: tuple):
    x = np.random.default_rng(n).normal(size=(*lead, n, n)).astype(np.float32)
    x += np.swapaxes(x, -1, -2)
    for place, special in (((0, -1), np.nan), ((-1, -1), -0.0), ((n // 2, 0), np.inf)):
        if n > 1:
            x[(..., *place)] = x[(..., *place[::-1])] = special
    payload = jax.jit(symmetric().encode)(x)
    assert payload.codes.shape == (*lead, n * (n + 1) // 2) and payload.codes.nbytes == symmetric().bytes(x.shape)
    assert symmetric().shape_of(payload) == x.shape
    found = np.asarray(symmetric().decode(payload, x.shape))
    np.testing.assert_array_equal(found.view(np.int32), x.view(np.int32))


def run(tx: Any) -> Any:
    def body(state: Any, g: Any) -> Any:
        u, state = tx.update(g, state, PARAMS)
        return state, u

    together = jax.tree.map(lambda *x: jnp.stack(x), *GRADIENTS)
    return jax.jit(lambda gs: jax.lax.scan(body, tx.init(PARAMS), gs))(together)


@pytest.mark.slow
def test_the_steps_of_shampoo_in_half_of_the_bytes():
    tx = kept(SHAMPOO, "factors", "roots")
    (state, us), (want, want_us) = run(tx), run(SHAMPOO)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), us, want_us)
    left, right = state.inner_state.factors["w"][0]
    assert left.codes.shape == (1, 15) and right.codes.shape == (1, 28)
    np.testing.assert_allclose(right.decoded((1, 7, 7)), want.factors["w"][0][1], rtol=1e-5)
    sizes = [gt.describe(x, PARAMS).state_bytes for x in (SHAMPOO, tx)]
    assert sizes[0] - sizes[1] == 2 * 4 * (10 + 21 + 15) - 4  # and a count of its own
    assert gt.metrics(state) == {"failed_roots": 0}


def test_all_slots_are_those_that_are_symmetric():
    state = jax.eval_shape(gt.stored(gt.shampoo(0.1), symmetric(), min_size=0).init, PARAMS).inner_state[0]
    assert state.mu["w"].shape == (5, 7) and state.roots["w"][0][0].codes.shape == (1, 15)
    small = jax.eval_shape(gt.stored(SHAMPOO, symmetric(), min_size=40).init, PARAMS).inner_state
    assert [hasattr(x, "codes") for x in small.factors["w"][0]] == [False, True]


class GramState(NamedTuple):
    gram: Any
    wide: Any

    symmetric_fields = ("gram", "wide")


@gt.transformation
def scale_by_gram():
    """A rule of a user, who says of a slot that it is symmetric, and of another what cannot be."""

    def init(p):
        return jnp.zeros((len(p), len(p))), jnp.zeros(p.shape)

    return gt.per_parameter(init, lambda g, slots, p, t: (g, (slots[0] + g @ g.T, slots[1])), GramState)


def test_rules_of_users():
    p = {"w": jnp.ones((3, 4))}
    tx = kept(scale_by_gram(), "gram")
    _, state = tx.update(p, tx.init(p))
    np.testing.assert_array_equal(state.inner_state.gram["w"].codes, np.full(6, 4.0))


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (kept(gt.scale_by_soap(), "bases"), r"cannot keep the slot bases of w: SoapState does not say .* symmetric"),
        (kept(gt.adam(0.1), "mu"), "ScaleByAdamState does not say that .*symmetric_fields"),
        (kept(scale_by_gram(), "wide"), r"the slot wide of w, of shape \(2, 3\): it is no stack of square matrices"),
        (kept(SHAMPOO, "factor"), "no slot factor; there are"),
    ],
)
def test_what_is_not_symmetric_is_refused(tx: Any, message: str):
    with pytest.raises(ValueError, match=message):
        tx.init({"w": jnp.ones((2, 3))})


@pytest.mark.slow
@pytest.mark.parametrize("restored", [False, True], ids=["as it was", "restored as dictionaries"])
def test_states_are_carried_both_ways(restored: bool):
    tx = kept(gt.scale_by_soap(), "factors")
    _, plain = gt.scale_by_soap().update(GRADIENTS[0], gt.scale_by_soap().init(PARAMS), PARAMS)
    packed, report = gt.migrate(plain, tx, PARAMS)
    assert not report.dropped and jax.tree.structure(packed) == jax.tree.structure(tx.init(PARAMS))
    old = flax.serialization.to_state_dict(packed) if restored else packed
    again, _ = gt.migrate(old, tx, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, again, packed)
    if not restored:  # dictionaries do not know the codec
        back, _ = gt.migrate(old, gt.scale_by_soap(), PARAMS)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), back, plain)


@pytest.mark.slow
def test_spread_over_devices():
    """ZeRO on eight devices: the numbers of one, in an eighth of the packed bytes."""
    policy = {"mu": int8(16), "factors": symmetric(), "roots": symmetric()}
    inner = gt.stored(SHAMPOO, policy, min_size=0)
    p = {"w": np.linspace(-1, 1, 32 * 16, dtype=np.float32).reshape(32, 16)}
    on = mesh(AxisType.Explicit, data=8)  # automatic axes: tests/optimizers/test_matrix_rules.py
    params, tx = put(p, on, {"w": jax.P(None, None)}), zero(inner)
    found = bytes_per_device(tx, params)
    assert found.per_device <= 0.14 * found.total
    one = jax.tree.map(jnp.asarray, p)
    with jax.set_mesh(on):
        state, want = init_sharded(tx, params), inner.init(one)
        update, update_one = jax.jit(tx.update), jax.jit(inner.update)
        for t in (1, 2):
            g = jax.tree.map(lambda x, t=t: jnp.sin(9 * t * x + t), one)
            u, state = update(put(g, on, {"w": jax.P(None, None)}), state, params)
            v, want = update_one(g, want, one)
            np.testing.assert_allclose(u["w"], v["w"], rtol=1e-3, atol=1e-3 * np.abs(v["w"]).max())


@pytest.mark.slow
def test_contract():
    check_contract(kept(SHAMPOO, "factors", "roots"), PARAMS, steps=2)
