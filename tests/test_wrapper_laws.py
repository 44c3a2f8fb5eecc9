# SPDX-License-Identifier: Apache-2.0
"""What every wrapper promises, whatever it wraps: the contract around several optimizers and three deep, the same
results under `vmap` and `shard_map` as without, and that what an inner state knows can be asked of the outer one.

A new wrapper needs a line in `WRAPPERS`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import gradtx
from gradtx.core._factory import REGISTRY
from gradtx.precision import bfloat16
from gradtx.testing import check_contract
from gradtx.testing._case import example_gradients
from support import meshes
from support.registry import turns

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.full(3, 0.5, jnp.float32)}
GRADIENTS = example_gradients(PARAMS)
RATE = gradtx.linear_schedule(0.1, 0.02, 10)


def matrices(params):
    return jax.tree.map(lambda p: jnp.ndim(p) == 2, params)


def kinds(params):
    return jax.tree.map(lambda p: "matrix" if jnp.ndim(p) == 2 else "rest", params)


def every_second(step, **extra):
    return step % 2 == 1


def boxed(state):
    return {"state": state}


def unboxed(box):
    return box["state"]


def adamw_with_rate(learning_rate):
    return gradtx.adamw(learning_rate)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2),
    "aggregate": lambda tx: gradtx.aggregating.aggregate(
        gradtx.clip(0.5), gradtx.aggregating.accumulate_avg_updates(2), tx
    ),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 2),
    "cautious": lambda tx: gradtx.cautious(tx, descent=True),
    "chain": lambda tx: gradtx.chain(gradtx.clip(0.5), tx),
    "conditionally_mask": lambda tx: gradtx.conditionally_mask(tx, every_second),
    "conditionally_transform": lambda tx: gradtx.conditionally_transform(tx, every_second),
    "dynamic_loss_scale": lambda tx: gradtx.dynamic_loss_scale(tx, 1024.0, 2),
    "flatten": lambda tx: gradtx.flatten(tx),
    "graft": lambda tx: gradtx.graft(gradtx.sign_sgd(1.0), tx),
    "guard": lambda tx: gradtx.guard(tx, gradtx.norm_spike(4, warmup=2)),
    "lookahead": lambda tx: gradtx.lookahead(tx, 2, 0.8),
    "low_rank": lambda tx: gradtx.low_rank(tx, 1),
    "masked": lambda tx: gradtx.masked(tx, matrices),
    "mechanize": lambda tx: gradtx.mechanize(tx, s_init=0.1),
    "named_chain": lambda tx: gradtx.named_chain(("clip", gradtx.clip(0.5)), ("optimizer", tx)),
    "offload": lambda tx: gradtx.sharding.offload(tx),
    "orthograd": lambda tx: gradtx.orthograd(tx),
    "over_axes": lambda tx: gradtx.sharding.over_axes(tx, ()),
    "partition": lambda tx: gradtx.partition({"matrix": tx, "rest": gradtx.sgd(0.1)}, kinds),
    "primal_averaging": lambda tx: gradtx.primal_averaging(tx),
    "record_metrics": lambda tx: gradtx.record_metrics(tx),
    "repack_state": lambda tx: gradtx.repack_state(tx, boxed, unboxed),
    "reset_every": lambda tx: gradtx.reset_every(tx, 2),
    "sam": lambda tx: gradtx.sam(tx, gradtx.chain(gradtx.normalize(), gradtx.sgd(0.05))),
    "schedule_free": lambda tx: gradtx.schedule_free(tx, 0.1),
    "split_real_and_imaginary": lambda tx: gradtx.split_real_and_imaginary(tx),
    "spread_matrices": lambda tx: gradtx.sharding.spread_matrices(tx, ()),
    "stored": lambda tx: gradtx.stored(tx, bfloat16(), min_size=0),
    "trac": lambda tx: gradtx.trac(tx, eps=0.1),
    "unstacked": lambda tx: gradtx.unstacked(tx),
    "with_gradient_signs": lambda tx: gradtx.with_gradient_signs(tx, descent=True),
    "with_master_params": lambda tx: gradtx.with_master_params(tx, gradtx.keep_master()),
    "with_roles": lambda tx: gradtx.with_roles((("**", gradtx.Role()),), tx),
    "zero": lambda tx: gradtx.sharding.zero(tx, "devices", mesh=meshes.mesh(devices=1)),
}
"""A call of each factory that takes a transformation and does not stand for other factories' calls."""

OPTIMIZERS = {
    "adamw": gradtx.adamw(RATE, mask=matrices),
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
