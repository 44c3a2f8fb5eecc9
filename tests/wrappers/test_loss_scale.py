# SPDX-License-Identifier: Apache-2.0
"""Loss scaling: in half precision, with overflow, around and inside others. Formulas: tests/formulas."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as Spec

import gradtx as gt

PARAMS = {"w": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(0.5)}
NAN = float("nan")


def run(tx, factors, params=PARAMS, scaled=True):
    """The states after steps with the gradients `factor * params`, times the scale of the state."""
    state, found = tx.init(params), []
    for factor in factors:
        scale = gt.loss_scale(state) if scaled else 1.0
        g = jax.tree.map(lambda p, f=factor, s=scale: p * jnp.asarray(f * s, p.dtype), params)
        updates, state = tx.update(g, state, params)
        found.append((updates, state))
    return found


def test_a_run_with_scaled_gradients_is_bit_for_bit_the_run_without():
    inner = gt.adamw(0.1)
    tx = gt.dynamic_loss_scale(inner, 2.0**20, growth_interval=3)
    state, plain = tx.init(PARAMS), inner.init(PARAMS)
    params = want = PARAMS
    for i in range(30):
        g = jax.tree.map(lambda p: jnp.cos(p) * jnp.float32(1e-9), params)
        factor = gt.loss_scale(state) * (1.0 if i % 7 else NAN)
        scaled = jax.tree.map(lambda g, f=factor: g * f, g)
        updates, state = tx.update(scaled, state, params)
        params = gt.apply_updates(params, updates)
        if i % 7:
            updates, plain = inner.update(g, plain, want)
            want = gt.apply_updates(want, updates)
    chex.assert_trees_all_equal((params, state.inner_state), (want, plain))
    assert int(state.skipped) == 5


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_what_underflows_in_half_precision_is_learned_with_a_scale(dtype):
    """A network in half precision whose gradients are below the smallest number of float16."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(32, 4)), dtype)
    y = x @ jnp.asarray([1.0, -0.5, 0.25, 0.75], dtype)
    tiny = 1e-9

    def loss(params, scale):
        half = params.astype(dtype)
        wrong = (x @ half - y).astype(jnp.float32)
        return jnp.mean(wrong**2) * tiny * scale

    def train(tx, scaled):
        def step(carry, _):
            params, state = carry
            scale = gt.loss_scale(state) if scaled else 1.0
            g = jax.grad(loss)(params.astype(dtype), scale)
            assert g.dtype == dtype
            updates, state = tx.update(g, state, params)
            return (gt.apply_updates(params, updates), state), None

        (params, state), _ = jax.lax.scan(step, (jnp.zeros(4), tx.init(jnp.zeros(4))), length=300)
        return float(loss(params, 1.0) / tiny), state

    start = float(loss(jnp.zeros(4), 1.0) / tiny)
    inner = gt.sgd(0.2 / tiny)
    error, state = train(gt.dynamic_loss_scale(inner, 2.0**15, growth_interval=20), True)
    assert error < 1e-3 * start
    for leaf in jax.tree.leaves(state):
        assert np.isfinite(leaf).all()
    if dtype == jnp.float16:
        assert train(inner, False)[0] == start  # every gradient is 0
        assert int(train(gt.dynamic_loss_scale(inner, 2.0**50), True)[1].skipped) > 0  # too much at first: it goes down


def test_the_division_is_in_float32():
    """1,000 in float16 divided by 2^30 would be 0 there."""
    g = jnp.asarray([1000.0, -0.5], jnp.float16)
    tx = gt.dynamic_loss_scale(gt.scale(2.0**20), 2.0**30)
    updates, _ = tx.update(g, tx.init(g), g)
    assert updates.dtype == jnp.float16
    np.testing.assert_array_equal(updates, np.asarray(g, np.float32) / 2.0**10)


def test_the_scale_stays_finite_and_above_its_minimum():
    grow = gt.dynamic_loss_scale(gt.identity(), 2.0**120, growth_interval=1, factor=16.0)
    assert float(gt.loss_scale(run(grow, [0.0] * 5)[-1][1])) == 2.0**124
    shrink = gt.dynamic_loss_scale(gt.identity(), 8.0, factor=4.0, minimum=3.0)
    assert [float(s.scale) for _, s in run(shrink, [NAN] * 3)] == [3.0, 3.0, 3.0]


def test_loss_scale_finds_the_scale_anywhere():
    tx = gt.chain(gt.clip(1.0), gt.named_chain(("a", gt.masked(gt.dynamic_loss_scale(gt.adam(0.1), 32.0), True))))
    assert float(jax.jit(gt.loss_scale)(tx.init(PARAMS))) == 32.0
    with pytest.raises(ValueError, match="loss_scale: the state must have one dynamic_loss_scale in it, found 0"):
        gt.loss_scale(gt.adam(0.1).init(PARAMS))
    two = gt.chain(gt.dynamic_loss_scale(gt.identity()), gt.dynamic_loss_scale(gt.identity()))
    with pytest.raises(ValueError, match="found 2"):
        gt.loss_scale(two.init(PARAMS))


def test_with_a_guard_inside_norms_are_those_of_the_loss():
    tx = gt.dynamic_loss_scale(gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(8, warmup=3)), 4.0, growth_interval=2)
    found = run(tx, [1.0, 1.1, 1.0, 1.1, NAN, 1.0, 90.0])
    outer, inner = found[-1][1], found[-1][1].inner_state
    assert (int(outer.skipped), int(inner.skipped)) == (1, 1)
    np.testing.assert_allclose(inner.norm, 90 * np.sqrt(5.25), rtol=1e-6)
    metrics = gt.metrics(outer, tx)
    assert float(metrics["loss_scale"]) == 16.0 and int(metrics["last_reason"]) == gt.skipping.SkipReason.NORM_SPIKE
    np.testing.assert_array_equal(gt.eval_params(outer, PARAMS)["w"], PARAMS["w"])


def test_scheduled_minimum_and_traced_numbers():
    tx = gt.dynamic_loss_scale(gt.sgd(0.1), 8.0, minimum=gt.linear_schedule(8.0, 2.0, 3))
    state = tx.init(PARAMS)
    seen = []
    for _ in range(5):
        _, state = tx.update(jax.tree.map(lambda p: p * NAN, PARAMS), state, PARAMS)
        seen.append(float(gt.loss_scale(state)))
    assert seen == [8.0, 6.0, 4.0, 2.0, 2.0]


def test_complex_and_missing_gradients():
    params = {"z": jnp.asarray([1.0 + 2.0j]), "none": None, "n": jnp.arange(2)}
    g = {"z": params["z"] * 4.0, "none": None, "n": np.zeros(2, jax.dtypes.float0)}
    tx = gt.dynamic_loss_scale(gt.identity(), 4.0)
    updates, _ = tx.update(g, tx.init(params), params)
    np.testing.assert_array_equal(updates["z"], params["z"])
    assert updates["none"] is None and updates["n"] is None
    updates, state = tx.update({**g, "z": params["z"] * complex(1, NAN)}, tx.init(params), params)
    assert int(state.skipped) == 1 and not updates["z"].any()


def test_double_precision_stays(x64):
    params = jnp.asarray([1.0, 2.0], jnp.float64)
    tx = gt.dynamic_loss_scale(gt.identity(), 3.0)
    updates, state = tx.update(params * 3, tx.init(params), params)
    assert updates.dtype == state.scale.dtype == jnp.float64
    np.testing.assert_allclose(updates, params, rtol=1e-15)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("wrap", [gt.dynamic_loss_scale, lambda tx, **kw: gt.apply_if_finite(tx, 9, **kw)])
def test_inside_shard_map_all_devices_decide_alike(wrap, check_vma):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    params = jnp.ones([16])
    tx = wrap(gt.scale_by_adam(), axis_name="d")
    state = tx.init(params)
    spread = jax.tree.map(lambda x: Spec("d") if x.shape == (16,) else Spec(), state)

    @jax.jit
    @jax.shard_map(
        mesh=mesh, in_specs=(Spec("d"), spread, Spec("d")), out_specs=(Spec("d"), spread), check_vma=check_vma
    )
    def step(g, state, params):
        return tx.update(g, state, params)

    updates, after = step(params.at[9].set(NAN), state, params)
    assert not updates.any()
    chex.assert_trees_all_equal(after.inner_state, state.inner_state)
    updates, after = step(params, state, params)
    assert updates.all() and int(after.inner_state.count) == 1


def test_bad_input():
    with pytest.raises(ValueError, match="dynamic_loss_scale: factor must be a number >= 1, got 0.9"):
        gt.dynamic_loss_scale(gt.sgd(0.1), factor=0.9)
    with pytest.raises(ValueError, match="dynamic_loss_scale: initial must be at least minimum, which is 4.0, got 2.0"):
        gt.dynamic_loss_scale(gt.sgd(0.1), 2.0, minimum=4.0)
    with pytest.raises(ValueError, match="growth_interval must be a whole number >= 1, got 0"):
        gt.dynamic_loss_scale(gt.sgd(0.1), growth_interval=0)
    tx = gt.dynamic_loss_scale(gt.sgd(0.1))
    with pytest.raises(TypeError, match="dynamic_loss_scale: state must be the DynamicLossScaleState"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))
