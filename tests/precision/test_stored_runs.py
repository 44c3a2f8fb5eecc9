# SPDX-License-Identifier: Apache-2.0
"""Runs whose moments are stored: on 8 devices as on one, and restored from a checkpoint, bit for bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.precision import bfloat16, companded8, float8, float32, int4, int8
from support.registry import turns

pytestmark = pytest.mark.slow


def adam(mu: Any, nu: Any) -> Any:
    return gradtx.chain(gradtx.stored(gradtx.scale_by_adam(), {"mu": mu, "nu": nu}, min_size=0), gradtx.scale(-1e-2))


def both(codec: Any, **options: Any) -> Any:
    return adam(codec(32, **options), codec(32, signed=False, **options))


OPTIMIZERS = {
    "float32": adam(float32(), float32()),
    "bfloat16": adam(bfloat16(), bfloat16()),
    "bfloat16, stochastic": adam(bfloat16(stochastic=True), bfloat16(stochastic=True)),
    "int8": both(int8, stochastic=False),
    "int8, stochastic": both(int8, stochastic=True),
    "companded8": both(companded8, stochastic=False),
    "companded8, stochastic": both(companded8, stochastic=True),
    "float8, e4m3": adam(float8("e4m3", 32), float8("e4m3", 32, signed=False)),
    "float8, e5m2": adam(float8("e5m2", 32), float8("e5m2", 32, signed=False)),
    "int4": both(int4, stochastic=False),
    "int4, stochastic": both(int4, stochastic=True),
    "adamw8bit": gradtx.adamw8bit(1e-2, block=32, min_size=0),
    "lion8bit": gradtx.lion8bit(1e-2, block=32, min_size=0),
    "adamw_bf16": gradtx.adamw_bf16(1e-2, block=32, min_size=0),
}
each = pytest.mark.parametrize("name", OPTIMIZERS)


def start(name: str) -> dict:
    rng = np.random.default_rng(0)
    dtype = jnp.bfloat16 if name == "adamw_bf16" else jnp.float32
    return {"w": jnp.asarray(rng.normal(size=(8, 128)), dtype), "b": jnp.asarray(rng.normal(size=(16, 64)), dtype)}


def run(tx: Any, params: dict, steps: range, state: Any = None) -> tuple[dict, Any]:
    """Gradients of many sizes, the same in each run and others in each step."""
    state = tx.init(params) if state is None else state

    @jax.jit
    def step(params: dict, state: Any, gradients: dict) -> tuple:
        updates, state = tx.update(gradients, state, params)
        return gradtx.apply_updates(params, updates), state

    for i in steps:
        rng = np.random.default_rng(i)
        made = {n: rng.normal(size=p.shape) * np.exp(2 * rng.normal(size=p.shape)) for n, p in sorted(params.items())}
        gradients = {n: jax.device_put(np.float32(g), params[n].sharding) for n, g in made.items()}
        params, state = step(params, state, gradients)
    return params, state


def assert_same(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spec"),
    [turns((n, s), i + k) for i, n in enumerate(OPTIMIZERS) for k, s in enumerate([P("x"), P(None, "y"), P("x", "y")])],
    ids=str,
)
def test_eight_devices_do_what_one_does(name: str, spec: P):
    tx, params = OPTIMIZERS[name], start(name)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    sharded = jax.device_put(params, NamedSharding(mesh, spec))
    found, expected = run(tx, sharded, range(5)), run(tx, params, range(5))
    assert len(found[0]["w"].sharding.device_set) == 8
    assert_same(found, expected)


@each
def test_a_restored_run_goes_on_as_if_it_had_not_stopped(name: str, tmp_path: Any):
    tx, params = OPTIMIZERS[name], start(name)
    half = run(tx, params, range(4))
    import orbax.checkpoint

    with orbax.checkpoint.StandardCheckpointer() as saver:
        saver.save(tmp_path / "run", half)
        saver.wait_until_finished()
        restored = saver.restore(tmp_path / "run", jax.eval_shape(lambda: (params, tx.init(params))))
    assert_same(run(tx, restored[0], range(4, 8), restored[1]), run(tx, params, range(8)))
