# SPDX-License-Identifier: Apache-2.0
"""Few-bit states inside `shard_map`: the payload of a part is the part of the payload, wherever blocks end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx.precision import bfloat16, companded8, float8, int4, int8
from gradtx.sharding import over_axes, state_shardings
from support.meshes import SPECS, mesh, numbers, put

ON = mesh()


def two_steps(tx: Any, state: Any, params: Any, gradients: list) -> Any:
    found = []
    for g in gradients:
        u, state = tx.update(g, state, params)
        found.append(u)
    return found, state


def check_like_one_device(tx: Any) -> None:
    """Also from a state of one device on, which lies where `state_shardings` says."""
    params, split = jax.tree.map(jnp.asarray, numbers()), over_axes(tx, SPECS)
    gradients = [jax.tree.map(jnp.asarray, numbers(seed, 0.1)) for seed in (1, 2, 3)]
    _, first = jax.jit(tx.update)(gradients[0], tx.init(params), params)
    want = jax.jit(lambda *args: two_steps(tx, *args))(first, params, gradients[1:])
    lies = state_shardings(split, put(params, ON))
    specs = jax.tree.map(lambda x: x.spec, lies)
    run = jax.shard_map(
        lambda *args: two_steps(split, *args),
        mesh=ON,
        in_specs=(specs, SPECS, [SPECS] * 2),
        out_specs=([SPECS] * 2, specs),
    )
    got = jax.jit(run)(jax.device_put(first, lies), put(params, ON), [put(g, ON) for g in gradients[1:]])
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        far = np.abs(a - b) > 1e-5 * np.max(np.abs(b), initial=0)
        assert np.mean(far) < 1e-4  # one in many lies on the edge to the next code


@pytest.mark.parametrize("block", [100, 256, 1024])
def test_blocks_that_end_between_devices_and_elsewhere(block: int):
    check_like_one_device(gt.stored(gt.adam(1e-2), {"mu": int8(block), "nu": int8(block, signed=False)}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        {"mu": int4(100), "nu": int4(100, signed=False)},
        {"mu": companded8(256), "nu": int4(256, signed=False, stochastic=True)},
        {"mu": float8("e4m3"), "nu": bfloat16(stochastic=True)},
    ],
    ids=["int4", "companded8", "float8"],
)
def test_codecs(policy: dict):
    check_like_one_device(gt.stored(gt.adam(1e-2), policy))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw8bit", "lion8bit", "muon8bit"])
def test_presets(name: str):
    check_like_one_device(getattr(gt, name)(1e-2))


def test_how_large_a_parameter_is_is_known_of_the_whole():
    """The parts of `w` are smaller than `min_size`."""
    tx = over_axes(gt.stored(gt.adam(1e-2), int8(), min_size=256 * 512), SPECS)
    specs = jax.tree.map(lambda x: x.spec, state_shardings(tx, put(numbers(), ON)))
    state = jax.jit(jax.shard_map(tx.init, mesh=ON, in_specs=(SPECS,), out_specs=specs))(put(numbers(), ON))
    assert state.inner_state[0].mu["w"].codes.dtype == jnp.uint8
    assert state.inner_state[0].mu["b"].dtype == jnp.float32


def test_blocks_need_to_know_the_axes():
    tx = over_axes(gt.stored(gt.adam(1e-2), int8(), min_size=0), ("data", "model"))
    run = jax.shard_map(tx.init, mesh=ON, in_specs=SPECS["w"], out_specs=SPECS["w"])
    with pytest.raises(ValueError, match="give over_axes the PartitionSpecs"):
        jax.jit(run)(jnp.ones((256, 512)))
