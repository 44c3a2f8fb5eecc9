# SPDX-License-Identifier: Apache-2.0
"""What every wrapper promises, whatever it wraps: the contract around several optimizers and three deep, the same
results under `vmap` and `shard_map` as without, and that what an inner state knows can be asked of the outer one.

A new wrapper needs a line in `WRAPPERS` of tests/support/wrappers.py.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import gradtx
from gradtx.core._factory import REGISTRY
from gradtx.testing import check_contract
from gradtx.testing._case import example_gradients
from support.registry import only_matrices, turns
from support.wrappers import WRAPPERS

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.full(3, 0.5, jnp.float32)}
GRADIENTS = example_gradients(PARAMS)
RATE = gradtx.linear_schedule(0.1, 0.02, 10)


OPTIMIZERS = {
    "adamw": gradtx.adamw(RATE, mask=only_matrices),
    "momentum": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9, nesterov=True)),
    "adafactor": gradtx.adafactor(0.1, min_dim_size_to_factor=2),
}

PASSES_STEP = set(WRAPPERS) - {"MultiSteps", "aggregate", "conditionally_mask", "conditionally_transform", "sam"}
"""Those that call the inner update at every step that is given to them."""

NAMES = sorted(WRAPPERS)
each_wrapper = pytest.mark.parametrize("name", NAMES)


def nested(i: int) -> Any:
    """Three wrappers around AdamW; over all i, each wrapper is at each depth."""
    outer, middle, inner = (WRAPPERS[NAMES[(i + 5 * k) % len(NAMES)]] for k in range(3))
    return outer(middle(inner(OPTIMIZERS["adamw"])))


def test_every_wrapper_is_here():
    inner = {"inner", "base_optimizer", "fast_optimizer", "optimizer", "opt"}
    inner |= {"transforms", "transformations", "direction", "postprocessor"}

    def takes_a_transformation(factory: Any) -> bool:
        return any(p.name in inner and p.default is p.empty for p in factory.signature.parameters.values())

    wrappers = {f.name for f in REGISTRY.values() if f.module.startswith("gradtx.") and takes_a_transformation(f)}
    recipes = {"selective_transform", "mars"}
    recipes |= {"add_mean_variance_to_opt"}  # of per-element gradients: tests/wrappers/test_aggregating.py
    assert wrappers - recipes == set(WRAPPERS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer"), [turns((n, o), i + k) for i, n in enumerate(NAMES) for k, o in enumerate(OPTIMIZERS)]
)
def test_contract_around_an_optimizer(name: str, optimizer: str):
    check_contract(WRAPPERS[name](OPTIMIZERS[optimizer]), PARAMS, value=jnp.asarray(1.5, jnp.float32))


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(NAMES)))
def test_contract_three_deep(i: int):
    check_contract(nested(i), PARAMS, value=jnp.asarray(1.5, jnp.float32))


def trained(tx: Any, params: Any, gradients: Any, steps: int = 4) -> Any:
    def step(carry: tuple, i: jax.Array) -> tuple:
        params, state = carry
        g = jax.tree.map(lambda g: g * (1 + 0.1 * i.astype(g.dtype)), gradients)
        updates, state = tx.update(g, state, params, value=jnp.asarray(1.5, jnp.float32))
        return (gradtx.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps, dtype=jnp.int32))[0][0]


def assert_close(have: Any, want: Any) -> None:
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@functools.cache
def alone(i: int) -> Any:
    return jax.jit(lambda p, g: trained(nested(i), p, g))(PARAMS, GRADIENTS)


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(NAMES)))
def test_a_population_under_vmap_is_its_members(i: int):
    sizes = jnp.asarray([1.0, 0.5], jnp.float32)
    population = jax.tree.map(lambda g: jnp.stack([s * g for s in sizes]), GRADIENTS)
    found = jax.jit(jax.vmap(lambda g: trained(nested(i), PARAMS, g)))(population)
    assert_close(jax.tree.map(lambda x: x[0], found), alone(i))


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(NAMES)))
def test_replicated_in_shard_map_it_is_the_same(i: int):
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = PartitionSpec()
    run = jax.shard_map(
        lambda p, g: trained(nested(i), p, jax.lax.pmean(g, "devices")),
        mesh=mesh,
        in_specs=everywhere,
        out_specs=everywhere,
        check_vma=False,
    )
    assert_close(jax.jit(run)(PARAMS, GRADIENTS), alone(i))


@each_wrapper
def test_schedules_are_read_and_set_through_it(name: str):
    tx = WRAPPERS[name](gradtx.sgd(RATE))
    state, params = tx.init(PARAMS), PARAMS
    for _ in range(4):
        _, state = tx.update(GRADIENTS, state, params, value=jnp.asarray(1.5, jnp.float32))
    rate = "matrix.learning_rate" if name == "partition" else "learning_rate"
    calls = 4 if name in PASSES_STEP else 2
    np.testing.assert_allclose(gradtx.metrics(state, tx)[rate], RATE(calls - 1), rtol=1e-6)
    assert gradtx.metrics(gradtx.restart(state, at=8), tx)[rate] == RATE(7)


@each_wrapper
def test_metrics_keep_their_names_inside_of_it(name: str):
    inner = gradtx.guard(gradtx.record_metrics(gradtx.sgd(0.25)))
    tx = WRAPPERS[name](inner)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(tx.init, PARAMS))
    seen = gradtx.metrics(state, tx)
    names = {"skipped", "consecutive_skips", "last_reason", "grad_norm", "Guard.grad_norm", "update_norm"}
    assert names | {"step_skipped"} <= set(gradtx.metrics(state)) & set(seen)
    assert seen["matrix.learning_rate" if name == "partition" else "learning_rate"] == 0.25


@each_wrapper
def test_evaluation_parameters_are_found_through_it(name: str):
    # schedule_free has an average of its own, and an average inside of it would not be one of the parameters.
    averaged = gradtx.sgd(0.1) if name == "schedule_free" else gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.5))
    tx = WRAPPERS[name](averaged)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(GRADIENTS, state, params, value=jnp.asarray(1.5, jnp.float32))
        params = gradtx.apply_updates(params, updates)
    found = gradtx.eval_params(state, params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(lambda x: (x.shape, x.dtype), params)
    # What low_rank has inside are parameters of another shape, so it answers with its own.
    assert np.allclose(found["w"], params["w"]) == (name == "low_rank")
