# SPDX-License-Identifier: Apache-2.0
"""Rules that find their learning rate: what no formula of tests/formulas says."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx.numerics._special import erfi

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.asarray(0.5)}
TRANSFORMATIONS = {
    "dog": gt.dog(),
    "dowg": gt.dowg(),
    "cocob": gt.cocob(),
    "dadapt_adamw": gt.dadapt_adamw(),
    "dadapt_adan": gt.dadapt_adan(),
    "dadapt_lion": gt.dadapt_lion(),
    "dadapt_sgd": gt.dadapt_sgd(),
    "prodigy": gt.prodigy(),
    "momo": gt.momo(adapt_lower_bound=True),
    "momo_adam": gt.momo_adam(adapt_lower_bound=True),
    "adamg": gt.adamg(),
    "schedule_free_plus": gt.schedule_free_plus(b1_steps=2),
    "scale_by_distance_over_gradients": gt.scale_by_distance_over_gradients(),
    "sgd_sai": gt.sgd_sai(0.1),
    "mechanize": gt.mechanize(gt.sgd(0.1)),
    "trac": gt.trac(gt.sgd(0.1)),
}


def steps(tx, gradients, params=PARAMS, value=1.0):
    """The parameters after these gradients, and the state."""
    state = tx.init(params)
    for g in gradients:
        updates, state = tx.update(g, state, params, value=jnp.asarray(value))
        params = gt.apply_updates(params, updates)
    return params, state


def times(factor, tree=PARAMS):
    return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_derivatives_are_finite_at_gradients_of_zero(name: str):
    def end(factors, params):
        params, _ = steps(TRANSFORMATIONS[name], [times(f) for f in factors], params)
        return sum(jnp.sum(p) for p in jax.tree.leaves(params))

    derivatives = jax.jit(jax.grad(end, (0, 1)))
    for factors in ((0.0, 0.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0)):
        for derivative in jax.tree.leaves(derivatives(jnp.asarray(factors), PARAMS)):
            assert np.isfinite(derivative).all(), factors


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_gradients_of_zero_move_nothing(name: str):
    params, _ = steps(TRANSFORMATIONS[name], [times(0.0)] * 2)
    chex.assert_trees_all_equal(params, PARAMS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dadapt_adamw", "dadapt_adan", "dadapt_lion", "dadapt_sgd", "prodigy"])
def test_a_warmup_from_zero_is_finite(name: str):
    tx = TRANSFORMATIONS[name].replace(learning_rate=lambda count: jnp.minimum(jnp.asarray(count, float) / 3, 1.0))
    params, _ = steps(tx, [times(1.0)] * 5)
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(params))
    assert not np.array_equal(params["w"], PARAMS["w"])


def estimate(tx, gradients):
    _, state = steps(tx, gradients)
    return float(next(s for s in (state, *state) if hasattr(s, "estim_lr")).estim_lr)


@pytest.mark.parametrize("name", ["dadapt_adamw", "dadapt_adan", "dadapt_lion", "dadapt_sgd"])
def test_the_growth_of_the_estimate_is_limited(name: str):
    gradients = [times(1.0)] * 6
    free = estimate(TRANSFORMATIONS[name].replace(estim_lr0=0.01), gradients)
    bounded = estimate(TRANSFORMATIONS[name].replace(estim_lr0=0.01, growth_rate=1.1), gradients)
    assert 0.01 < bounded < min(free, 0.01 * 1.1**6)


def test_dadapt_lion_is_lion_where_its_rate_is_1():
    gradients = [times(x) for x in (1.0, -3.0, 2.0, 2.0)]
    found, state = steps(gt.dadapt_lion(10.0, estim_lr0=0.1, growth_rate=1.0), gradients)
    expected, _ = steps(gt.lion(1.0, weight_decay=0.0), gradients)
    assert np.float32(0.1) == state.estim_lr
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_sai_waits_for_a_gradient():
    tx = gt.scale_by_initial_snr()
    g = times(1.0)
    assert steps(tx, [times(0.0), g])[1] == steps(tx, [g])[1]
    assert steps(tx, [g, times(3.0, {"w": PARAMS["w"][::-1], "b": PARAMS["b"]})])[1] == steps(tx, [g])[1]
    snr = steps(tx, [{"w": jnp.full((2, 3), 0.5), "b": jnp.asarray(2.0)}])[1].snr
    np.testing.assert_allclose([snr["w"], snr["b"]], [math.sqrt(6), 1], rtol=1e-6)


def test_schedule_free_plus_answers_with_the_average():
    """Of all z with equal weights; of the last alone as long as nothing is averaged."""
    tx, gradients = gt.schedule_free_plus(0.1), [times(x) for x in (1.0, -3.0, 2.0, 2.0)]
    runs = [steps(tx, gradients[: n + 1]) for n in range(4)]
    for n in PARAMS:
        mean = np.mean([state.z[n] for _, state in runs], axis=0)
        np.testing.assert_allclose(gt.eval_params(runs[-1][1], runs[-1][0])[n], mean, rtol=1e-5, atol=1e-6)
    params, state = steps(tx.replace(average_from=4), gradients)
    for n, x in gt.eval_params(state, params).items():
        np.testing.assert_allclose(x, state.z[n], rtol=1e-6, atol=1e-6)


def test_schedule_free_plus_raises_b1_geometrically():
    tx = gt.schedule_free_plus(b1=0.9, b1_steps=2, b1_max=0.999)
    found = [float(steps(tx, [times(1.0)] * n)[1].b1) for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(found, [0.9, 0.99, 0.999, 0.999], rtol=1e-6)


def test_dog_that_starts_from_a_rate_takes_it():
    params, state = steps(gt.scale_by_dog("learning_rate", 0.25), [times(1.0)])
    np.testing.assert_allclose(params["w"], 1.25 * PARAMS["w"], rtol=1e-6)
    assert not state.is_init_step


def test_mechanic_and_trac_keep_the_start_in_its_own_dtype():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    for name in ("mechanize", "trac"):
        x0 = TRANSFORMATIONS[name].init(params).x0
        chex.assert_trees_all_equal(x0, params)
        assert x0["w"].dtype == jnp.bfloat16


@pytest.mark.slow
def test_trac_goes_back_when_the_past_was_wrong():
    tx = gt.trac(gt.sgd(0.1), betas=(0.9, 0.99), eps=0.1)
    at = [steps(tx, [times(1.0)] * n)[0]["w"] for n in range(5)]
    np.testing.assert_array_equal(at[1], at[0])  # nothing is known at the first step
    assert np.abs(at[4] - at[0]).max() > np.abs(at[3] - at[0]).max() > np.abs(at[2] - at[0]).max() > 0
    back, _ = steps(tx, [times(1.0)] * 4 + [times(-3.0)] * 2)
    assert np.abs(back["w"] - at[0]).max() < np.abs(at[4] - at[0]).max()
    against = [times(1.0)] * 2 + [times(-9.0)]
    turned, still = (steps(tx.replace(nonnegative=x), against)[0]["w"] for x in (False, True))
    assert np.abs(turned - at[0]).max() > 0
    np.testing.assert_array_equal(still, at[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gt.dog(init_step=0.1), "dog: init_step must be a pair"),
        (lambda: gt.dog(init_step=("guess", 0.1)), "init_step must be one of .*'guess'"),
        (lambda: gt.dog(init_step=("distance", -1.0)), "init_value must be a number > 0, got -1"),
        (lambda: gt.dadapt_adamw(betas=0.9), "dadapt_adamw: betas must be a pair of numbers, got 0.9"),
        (lambda: gt.prodigy(betas=(0.9, 0.99, 0.999)), "prodigy: betas must be a pair of numbers"),
        (lambda: gt.prodigy(betas=(0.9, 1.5)), r"b2 must be in \[0, 1\), got 1.5"),
        (lambda: gt.dadapt_lion(growth_rate=0.5), "growth_rate must be a number >= 1, got 0.5"),
        (lambda: gt.trac(gt.sgd(0.1), betas=()), r"trac: betas must be numbers in \(0, 1\], at least one, got \(\)"),
        (lambda: gt.trac(gt.sgd(0.1), betas=(0.9, 1.1)), "trac: betas must be numbers"),
    ],
)
def test_wrong_arguments_are_errors(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["momo", "momo_adam", "schedule_free_plus"])
def test_momo_and_schedule_free_plus_need_a_scalar_value(name: str):
    tx = TRANSFORMATIONS[name]
    with pytest.raises(ValueError, match=f"{name}: update needs value"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=rf"{name}: value must be a scalar, got shape \(3,\)"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.ones(3))


@pytest.mark.parametrize("name", ["mechanize", "trac"])
def test_the_base_optimizer_must_be_one(name: str):
    with pytest.raises(TypeError, match=f"{name}: base_optimizer must be a transformation"):
        getattr(gt, name)(0.1)
    tx = TRANSFORMATIONS[name]
    with pytest.raises(TypeError, match=f"{name}: state must be the .*State"):
        tx.update(PARAMS, PARAMS, PARAMS)
    with pytest.raises(ValueError, match=f"{name}: update needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


def by_series(x: float) -> float:
    terms = (x ** (2 * n + 1) / math.factorial(n) / (2 * n + 1) for n in range(170))
    return 2 / math.sqrt(math.pi) * math.fsum(terms)


@pytest.mark.slow
def test_erfi(x64):
    x = np.asarray([1e-200, 1e-20, 1e-5, 0.1, 0.5, 1.0, 2.5, 4.0, 7.0])
    expected = np.asarray([by_series(v) for v in x])
    np.testing.assert_allclose(erfi(jnp.asarray(x)), expected, rtol=1e-14)
    np.testing.assert_allclose(erfi(jnp.asarray(-x)), -expected, rtol=1e-14)
    np.testing.assert_allclose(erfi(jnp.asarray(x, jnp.float32))[1:], expected[1:], rtol=3e-6)
    assert erfi(jnp.zeros((2, 0, 3))).shape == (2, 0, 3)
    slopes = jax.vmap(jax.grad(erfi))(jnp.asarray(x))
    np.testing.assert_allclose(slopes, 2 / math.sqrt(math.pi) * np.exp(x**2), rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_erfi_stays_finite(dtype, x64):
    edge = math.sqrt(math.log(float(jnp.finfo(dtype).max)))
    x = jnp.asarray([0.9 * edge, edge, 10 * edge, jnp.inf], dtype)
    y = erfi(x)
    assert y.dtype == dtype and np.isfinite(y).all() and y[0] < y[1] == y[2] == y[3]
    assert np.isfinite(jax.vmap(jax.grad(erfi))(x)).all()
    assert np.isnan(erfi(jnp.asarray(jnp.nan, dtype)))
