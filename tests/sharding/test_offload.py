# SPDX-License-Identifier: Apache-2.0
"""States in the host's memory: born there, and there after each update."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx.sharding import bytes_per_device, init_sharded, offload, state_shardings, zero
from support.meshes import mesh, numbers, put


def kinds(tree):
    return jax.tree.map(lambda x: getattr(x, "sharding", x).memory_kind, tree)


def test_the_state_stays_on_the_host_and_keeps_its_shardings():
    on = mesh()
    params = put(numbers(), on)
    tx = offload(gt.adamw(1e-3))
    state = init_sharded(tx, params)
    want = jax.tree.map(lambda x: x.sharding, state)
    assert want == state_shardings(tx, params)
    assert kinds(state[0]).mu == dict.fromkeys(params, "pinned_host") and kinds(state[0]).count == "device"
    update = jax.jit(tx.update, donate_argnums=1)
    for _ in range(2):
        u, state = update(params, state, params)
    assert jax.tree.map(lambda x: x.sharding, state) == want and kinds(u) == dict.fromkeys(params, "device")
    assert update._cache_size() == 1


def test_the_numbers_are_those_of_inner_outside_of_jit_too():
    params = jax.tree.map(jnp.asarray, numbers())
    tx, inner = offload(gt.adam(1e-3)), gt.adam(1e-3)
    state, other = tx.init(params), inner.init(params)
    for _ in range(2):
        u, state = tx.update(params, state, params)
        v, other = inner.update(params, other, params)
    assert kinds(state[0]).nu == dict.fromkeys(params, "pinned_host")
    jax.tree.map(np.testing.assert_array_equal, (u, state), (v, other))


@pytest.mark.parametrize(
    ("slots", "mu", "nu"),
    [("nu", "", "wvbn"), ("0.mu", "wvbn", ""), (("nu", gt.where("w")), "w", "wvbn"), (gt.of_kind("norm"), "n", "n")],
)
def test_some_slots(slots, mu, nu):
    params = jax.tree.map(jnp.asarray, numbers())
    rules = [("n", gt.Role("norm")), ("**", gt.Role("hidden"))]
    state = gt.with_roles(rules, offload(gt.adam(1e-3), slots=slots)).init(params)[0]
    assert {n for n, kind in kinds(state.mu).items() if kind == "pinned_host"} == set(mu)
    assert {n for n, kind in kinds(state.nu).items() if kind == "pinned_host"} == set(nu)


def test_around_zero():
    on = mesh(data=8)
    params = put(numbers(), on, dict.fromkeys(numbers(), jax.sharding.PartitionSpec()))
    tx = offload(zero(gt.adamw(1e-3)))
    with jax.set_mesh(on):
        state = init_sharded(tx, params)
        _, after = jax.jit(tx.update)(params, state, params)
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, after)
    found = bytes_per_device(tx, params)
    assert found.per_device <= 0.126 * found.total
    assert "in pinned_host" in str(found)


@pytest.mark.slow
def test_inside_stored_the_payloads_are_on_the_host():
    params = jax.tree.map(jnp.asarray, numbers())
    both = offload(gt.adam(1e-3)), gt.adam(1e-3)
    tx, other = (gt.stored(x, gt.precision.int8(), min_size=0) for x in both)
    states = tx.init(params), other.init(params)
    for _ in range(2):
        u, state = jax.jit(tx.update)(params, states[0], params)
        v, plain = jax.jit(other.update)(params, states[1], params)
        states = state, plain
    jax.tree.map(np.testing.assert_array_equal, (u, state), (v, plain))
    assert set(jax.tree.leaves(kinds(state.inner_state[0].nu))) == {"pinned_host"}


def test_transfers_have_no_derivative_in_jit():
    """JAX's own limit: where it is gone, `offload` belongs to the test of derivatives."""
    host, device = jax.memory.Space.Host, jax.memory.Space.Device
    found = jax.grad(lambda x: jax.device_put(jax.device_put(x, host), device))
    with pytest.raises(ValueError, match="Expected cotangent type"):
        jax.jit(found)(1.0)


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="offload: memory must be 'pinned_host', got 'hbm'"):
        offload(gt.adam(1e-3), "hbm")
    with pytest.raises(ValueError, match="offload: no slot 'rho'; there are 0.count, 0.mu, 0.nu"):
        offload(gt.adam(1e-3), slots="rho").init(numbers())
    with pytest.raises(TypeError, match="offload: slots must be names"):
        offload(gt.adam(1e-3), slots=3)
    monkeypatch.setattr("gradtx.sharding._offload.HOST", "elsewhere")
    with pytest.raises(ValueError, match="cpu devices have no memory 'elsewhere', only device, pinned_host"):
        offload(gt.adam(1e-3), "elsewhere").init(numbers())
