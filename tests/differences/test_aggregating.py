# SPDX-License-Identifier: Apache-2.0
"""Where gradtx's aggregators of gradients of single elements differ from those of optax 0.2.8."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.compat import optax as compat

pytestmark = pytest.mark.usefixtures("standard_promotion")

BOTH = pytest.mark.parametrize("lib", [compat, optax], ids=["gradtx", "optax"])


def place(lib):
    return lib.experimental.aggregating


@BOTH
def test_an_extra_argument(lib):
    parts = place(lib)
    tx = parts.process(lib.identity(), parts.average_per_element_updates(), lib.polyak_sgd())
    params = jnp.ones(2)
    update = functools.partial(tx.update, jnp.ones((3, 2)), tx.init(params), params)
    if lib is optax:
        with pytest.raises(TypeError, match="unexpected keyword argument 'value'"):
            update(value=1.0)
    else:
        np.testing.assert_allclose(update(value=1.0)[0], [-0.5, -0.5])


@BOTH
def test_what_the_preprocessor_gets(lib):
    seen, parts = [], place(lib)

    def update(updates, state, params=None, **extra):
        seen.append(params is not None)
        return updates, state

    spy = lib.GradientTransformationExtraArgs(lambda params: (), update)
    params = jnp.ones(2)
    for aggregator, g in (
        (parts.average_per_element_updates(), jnp.ones((3, 2))),
        (parts.average_incrementally_updates(None, 2), jnp.ones(2)),
    ):
        tx = parts.process(spy, aggregator, lib.identity())
        tx.update(g, tx.init(params), params)
    assert seen == [lib is optax, True]


@BOTH
def test_the_mean_of_bfloat16(lib):
    tx, params = place(lib).accumulate_avg_updates(4), jnp.ones(2, jnp.bfloat16)
    state = tx.init(params)
    for x in (256.0, 258.0, 258.0, 258.0):  # between which there is no bfloat16
        updates, state = tx.update(jnp.full(2, x, jnp.bfloat16), state, params)
    assert updates[0] == (256 if lib is optax else 258) and updates.dtype == jnp.bfloat16


@BOTH
def test_squares_of_float16(lib):
    tx = place(lib).get_per_element_mean_and_sum_sq_diff_grads()
    params = jnp.zeros(1, jnp.float16)
    (_, aux), _ = tx.update(jnp.asarray([[300.0], [-300.0]], jnp.float16), tx.init(params), params)
    assert aux["sum_sq_diff_grads"] == (np.inf if lib is optax else 180000)


@BOTH
def test_types_of_the_state(lib):
    tx = place(lib).get_per_element_mean_and_sum_sq_diff_grads(0, 2)
    params = jnp.zeros(2, jnp.bfloat16)
    before = tx.init(params)
    _, after = tx.update(jnp.ones((3, 2), jnp.bfloat16), before, params)
    same = jax.tree.map(lambda x: x.dtype, before) == jax.tree.map(lambda x: x.dtype, after)
    assert same == (lib is not optax)


@BOTH
@pytest.mark.parametrize("name", ["accumulate_avg_updates", "get_per_element_mean_and_sum_sq_diff_grads"])
def test_a_none_gradient(lib, name):
    parts, params = place(lib), {"w": jnp.zeros(2), "frozen": jnp.zeros(2)}
    mean = name == "accumulate_avg_updates"
    tx = parts.accumulate_avg_updates(2) if mean else parts.get_per_element_mean_and_sum_sq_diff_grads(0, 2)
    gradients = {"w": jnp.ones(2 if mean else (3, 2)), "frozen": None}
    if lib is optax:
        with pytest.raises(ValueError, match="pytree structure error"):
            tx.update(gradients, tx.init(params), params)
    else:
        tx.update(gradients, tx.init(params), params)


@BOTH
def test_a_gradient_that_would_be_broadcast(lib):
    tx = place(lib).accumulate_avg_updates(2)
    state = tx.init(jnp.ones((2, 3)))
    if lib is optax:
        assert tx.update(jnp.ones((1, 3)), state)[0].shape == (2, 3)
    else:
        with pytest.raises(ValueError, match=r"gradient of shape \(1, 3\), state of shapes \(2, 3\)"):
            tx.update(jnp.ones((1, 3)), state)


@BOTH
def test_leaves_of_different_numbers_of_elements(lib):
    tx, params = place(lib).average_per_element_updates(), {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    gradients = {"a": jnp.ones((3, 2)), "b": jnp.ones((5, 2))}
    if lib is optax:
        tx.update(gradients, tx.init(params), params)
    else:
        with pytest.raises(ValueError, match=r"5 at \['b'\], 3 at \['a'\]"):
            tx.update(gradients, tx.init(params), params)


@BOTH
def test_micro_batches_of_different_sizes(lib):
    tx, params = place(lib).get_per_element_mean_and_sum_sq_diff_grads(0, 2), jnp.zeros(1)
    small, large = np.asarray([[1.0], [3.0]]), np.asarray([[1.0], [3.0], [4.0], [8.0]])
    state = tx.init(params)
    for x in (small, large):
        (mean, aux), state = tx.update(jnp.asarray(x, jnp.float32), state, params)
    every = np.concatenate([small, large])
    of_means = (small.mean() + large.mean()) / 2
    np.testing.assert_allclose(mean, [of_means if lib is optax else every.mean()], rtol=1e-6)
    assert aux["sample_size"] == (8 if lib is optax else 6)
    assert ("sample_size" in state._fields) == (lib is not optax)


@BOTH
def test_complex_gradients(lib):
    tx, g = place(lib).get_per_element_mean_and_sum_sq_diff_grads(), np.asarray([1 + 1j, 2 - 1j, 3 + 2j])
    params = jnp.zeros([], jnp.complex64)
    (_, aux), _ = tx.update(jnp.asarray(g, jnp.complex64), tx.init(params), params)
    d = g - g.mean()
    expected = np.sum(d**2) if lib is optax else np.sum(np.abs(d) ** 2)
    np.testing.assert_allclose(aux["sum_sq_diff_grads"], expected, rtol=1e-5)


@BOTH
def test_a_sample_of_one(lib):
    tx, g = place(lib).track_per_element_mean_and_variance_with_ema(), jnp.ones(2)
    state = tx.init(g)
    with pytest.raises(ZeroDivisionError if lib is optax else ValueError):
        tx.update(g, state, sum_sq_diff_grads=jnp.zeros(2), sample_size=1)
    _, state = jax.jit(lambda n: tx.update(g, state, sum_sq_diff_grads=g, sample_size=n))(1)
    assert bool(jnp.isfinite(state.variance_grads_ema).all()) == (lib is not optax)


@BOTH
def test_before_the_first_update(lib):
    state = place(lib).track_per_element_mean_and_variance_with_ema().init(jnp.ones(2))
    for average in place(lib).get_unbiased_mean_and_variance_ema(state):
        np.testing.assert_array_equal(average, np.full(2, np.nan if lib is optax else 0.0))


@BOTH
def test_the_average_of_ones_is_one(lib):
    tx, ones, worst = place(lib).track_per_element_mean_and_variance_with_ema(0.9999), jnp.ones(2), 0.0
    state = tx.init(ones)
    for _ in range(12):
        _, state = tx.update(ones, state, sum_sq_diff_grads=2 * ones, sample_size=3)
        for average in place(lib).get_unbiased_mean_and_variance_ema(state):
            worst = max(worst, float(jnp.max(jnp.abs(average - 1))))
    assert (worst > 1e-4) == (lib is optax) and (worst < 1e-6) == (lib is not optax)


def test_the_names_are_gradtxs():
    parts = compat.experimental.aggregating
    assert parts.process is gt.aggregating.aggregate and parts.Aggregator is gt.GradientTransformation
