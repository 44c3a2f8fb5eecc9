# SPDX-License-Identifier: Apache-2.0
"""What the formulas do not show: edges, low precision, complex numbers, relations between the forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import chain, scale_by_lr, scale_by_momentum
from support.formulas import deviation, run_rule

HALVES = [jnp.float16, jnp.bfloat16]


def one_update(tx, g, p=None):
    p = g if p is None else p
    return tx.update(g, tx.init(p), p)


@pytest.mark.slow
def test_averaged_momentum_is_the_other_form_with_another_rate(x64):
    rate, r = 0.2, 0.8
    a = run_rule(chain(scale_by_momentum(r, averaged=True), scale_by_lr(rate)))
    b = run_rule(chain(scale_by_momentum(r), scale_by_lr(rate * (1 - r))))
    assert deviation(a, b) < 1e-13


@pytest.mark.slow
def test_the_velocity_form_differs_once_the_rate_changes(x64):
    constant = (chain(scale_by_lr(0.1), gradtx.trace(0.8)), chain(gradtx.trace(0.8), scale_by_lr(0.1)))
    assert deviation(*map(run_rule, constant)) < 1e-13

    def falling(count):
        return jnp.where(count < 2, 0.1, 0.01)

    changing = (chain(scale_by_lr(falling), gradtx.trace(0.8)), chain(gradtx.trace(0.8), scale_by_lr(falling)))
    assert deviation(*(run_rule(tx, steps=5) for tx in changing)) > 1e-3


def test_impulse_response_of_an_average():
    b, tx = 0.9, scale_by_momentum(0.9, averaged=True)
    state = tx.init(jnp.zeros(()))
    for k in range(6):
        u, state = tx.update(jnp.float32(k == 0), state)
        np.testing.assert_allclose(u, (1 - b) * b**k, rtol=1e-6)


def test_trace_and_scale_by_momentum_are_one_rule(x64):
    txs = gradtx.trace(0.8, True), scale_by_momentum(0.8, nesterov=True)
    assert deviation(*(run_rule(chain(tx, scale_by_lr(0.1))) for tx in txs)) < 1e-14


@pytest.mark.parametrize("dtype", HALVES)
def test_moments_of_half_precision_parameters_are_float32(dtype):
    p = jnp.ones(3, dtype)
    u, state = one_update(gradtx.adam(0.1), p)
    assert {x.dtype for x in jax.tree.leaves((state[0].mu, state[0].nu))} == {np.dtype("float32")}
    assert u.dtype == gradtx.apply_updates(p, u).dtype == dtype


def test_moment_dtypes_are_what_was_asked_for():
    _, state = one_update(gradtx.scale_by_adam(mu_dtype="bfloat16", nu_dtype=jnp.float16), jnp.ones(3))
    assert (state.mu.dtype, state.nu.dtype) == (jnp.bfloat16, jnp.float16)
    _, state = one_update(gradtx.trace(0.9, accumulator_dtype=jnp.bfloat16), jnp.ones(3))
    assert state.trace.dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "rmsprop", "adagrad", "sgd"])
def test_zero_gradients_in_half_precision_move_nothing(name, dtype):
    tx = getattr(gradtx, name)(0.1) if name != "adamw" else gradtx.adamw(0.1, weight_decay=0.0)
    u, _ = one_update(tx, jnp.zeros(3, dtype))
    np.testing.assert_array_equal(u, np.zeros(3))


def test_norms_of_float16_gradients_do_not_overflow():
    g = jnp.full(4, 300.0, jnp.float16)  # 4 * 300² is beyond float16's 65504
    for tx in (gradtx.clip_by_global_norm(1.0), gradtx.clip_by_norm(1.0), gradtx.clip_by_block_rms(0.5)):
        np.testing.assert_allclose(one_update(tx, g)[0], 0.5, rtol=1e-6)
    np.testing.assert_allclose(gradtx.global_norm({"a": g, "b": g}), 300 * np.sqrt(8), rtol=1e-6)


def test_clipping_leaves_small_gradients_alone_bit_for_bit():
    g = {"a": jnp.linspace(0, 0.1, 7), "b": jnp.zeros(())}
    for clip in (gradtx.clip_by_global_norm, gradtx.clip_by_norm, gradtx.clip_by_block_rms, gradtx.clip):
        tx = clip(1.0)
        chex.assert_trees_all_equal(one_update(tx, g)[0], g)


def test_centered_rms_of_equal_gradients_is_finite():
    tx = gradtx.scale_by_stddev(bias_correction=True)
    g = jnp.array([1e-3, 1.0, 1e4, 0.1])
    state = tx.init(g)
    for _ in range(20):
        u, state = tx.update(g, state)
        assert np.all(np.isfinite(u))


def test_adagrad_without_an_initial_value_is_zero_at_zero():
    u, _ = one_update(gradtx.scale_by_rss(0.0, 0.0), jnp.array([0.0, 2.0]))
    np.testing.assert_array_equal(u, [0.0, 1.0])


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adagrad", "sgd"])
def test_complex_parameters(name):
    """The second moment of a complex gradient is real, and rotating the gradient rotates the update."""
    p = jnp.array([1 + 1j, 2 - 1j], jnp.complex64)
    tx = getattr(gradtx, name)(0.1)
    state = tx.init(p)
    turned_state = state
    for _ in range(3):
        u, state = tx.update(p, state, p)
        turned, turned_state = tx.update(p * 1j, turned_state, p)
    np.testing.assert_allclose(turned, u * 1j, rtol=1e-5)
    assert all(not jnp.iscomplexobj(x) for path, x in jax.tree_util.tree_leaves_with_path(state) if "nu" in str(path))


def test_bias_correction_of_a_tree():
    moments = {"a": jnp.full(2, 0.1), "b": jnp.full(3, 0.1, jnp.bfloat16)}
    corrected = gradtx.tree.bias_correction(moments, 0.9, 1)
    np.testing.assert_allclose(corrected["a"], 1.0, rtol=1e-6)
    assert corrected["b"].dtype == jnp.bfloat16
    np.testing.assert_allclose(gradtx.tree.bias_correction(jnp.ones(1), 0.9, jnp.int32(7)), 1 / (1 - 0.9**7), rtol=1e-6)


def test_global_norm():
    assert gradtx.global_norm({}) == 0
    np.testing.assert_allclose(gradtx.global_norm((jnp.array(3.0), jnp.array([4j]))), 5.0)
    assert np.isfinite(jax.grad(lambda x: gradtx.global_norm(x))(jnp.zeros(2))).all()


def test_a_count_saturates():
    last = jnp.iinfo(jnp.int32).max
    assert gradtx.numerics.safe_increment(jnp.int32(last)) == last
    state = gradtx.adam(0.1).init(jnp.ones(2))
    state = (state[0]._replace(count=jnp.int32(last)), *state[1:])
    u, state = gradtx.adam(0.1).update(jnp.ones(2), state)
    assert state[0].count == last and np.all(np.isfinite(u))


@pytest.mark.parametrize("count", [True, 1j], ids=str)
def test_what_does_not_count(count):
    """Optax raises too."""
    with pytest.raises(TypeError, match=r"safe_increment: count must be whole numbers or floats, got"):
        gradtx.numerics.safe_increment(jnp.asarray(count))
    with pytest.raises(ValueError, match="safely increment"):
        optax.safe_increment(jnp.asarray(count))


def test_no_gradient_changes_nothing():
    p = {"a": jnp.ones(2), "b": jnp.ones(3), "c": {"d": jnp.ones(1)}}
    tx = chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
    _, state = tx.update(p, tx.init(p), p)
    u, after = tx.update({"a": None, "b": jnp.ones(3), "c": None}, state, p)
    assert u["a"] is None and u["c"] is None
    np.testing.assert_array_equal(after[1][0].mu["a"], state[1][0].mu["a"])
    np.testing.assert_array_equal(after[1][0].nu["c"]["d"], state[1][0].nu["c"]["d"])
    assert jax.tree.structure(after) == jax.tree.structure(state)
    moved = gradtx.apply_updates(p, u)
    np.testing.assert_array_equal(moved["a"], p["a"])


def test_integer_parameters_with_float0_gradients_stay():
    p = {"w": jnp.ones(2), "step": jnp.int32(3)}
    g = jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True)(p)
    u, _ = one_update(gradtx.adam(0.1), g, p)
    moved = gradtx.apply_updates(p, u)
    assert moved["step"] == 3 and moved["step"].dtype == jnp.int32 and moved["w"][0] < 1
