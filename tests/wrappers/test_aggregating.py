# SPDX-License-Identifier: Apache-2.0
"""Aggregators of gradients of single elements, against NumPy in float64 and optax in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.experimental import aggregating as theirs

import gradtx as gt
from gradtx.compat.optax.experimental import aggregating as ours
from support.elements import SHAPES, SIZE, STEPS, close, gradients, mean_of, rounds, run, squares_of

AXES = {"first": 0, "last": -1, "second": 1, "two": (0, 2)}
K = pytest.mark.parametrize("k", [1, 2, 3])
AXIS = pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
JIT = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])


# Against the formula.


@K
@JIT
def test_accumulate_avg_updates(k, wrap, x64):
    calls = gradients(None)
    found, state = run(gt.aggregating.accumulate_avg_updates(k), calls, jnp.float64, wrap)
    close(found, rounds(calls, k, lambda round: jax.tree.map(lambda *x: np.mean(x, 0), *round)), 1e-10)
    if k > 1:
        assert state.micro_step == 0 and state.ready
        close(state.avg_grad, {n: np.zeros(shape) for n, shape in SHAPES.items()}, 0)


@AXIS
@JIT
def test_average_per_element_updates(axis, wrap, x64):
    calls = gradients(axis)
    found, _ = run(gt.aggregating.average_per_element_updates(axis), calls, jnp.float64, wrap)
    close(found, [mean_of([g], axis) for g in calls], 1e-10)


@AXIS
@K
def test_average_incrementally_updates(axis, k, x64):
    calls = gradients(axis)
    found, _ = run(gt.aggregating.average_incrementally_updates(axis, k), calls, jnp.float64)
    close(found, rounds(calls, k, lambda round: mean_of(round, axis)), 1e-10)


def test_without_an_axis_of_elements_it_is_the_mean_over_calls():
    assert gt.aggregating.average_incrementally_updates(None, 3).expanded == gt.aggregating.accumulate_avg_updates(3)


@AXIS
@K
@JIT
def test_mean_and_sum_of_squares(axis, k, wrap, x64):
    calls = gradients(axis)
    found, state = run(gt.aggregating.get_per_element_mean_and_sum_sq_diff_grads(axis, k), calls, jnp.float64, wrap)
    close([m for m, _ in found], rounds(calls, k, lambda round: mean_of(round, axis)), 1e-10)
    sums = [aux["sum_sq_diff_grads"] for _, aux in found]
    close(sums, rounds(calls, k, lambda round: squares_of(round, axis)), 1e-10)
    size = SIZE ** len(np.atleast_1d(axis))
    assert [int(aux["sample_size"]) for _, aux in found] == [size * k if i % k == k - 1 else 0 for i in range(STEPS)]


def test_micro_batches_of_other_sizes_have_the_weight_of_their_elements(x64):
    calls = gradients(0, 2, 4) + gradients(0, 1, 7)
    found, _ = run(gt.aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, 3), calls, jnp.float64)
    mean, aux = found[-1]
    close(mean, mean_of(calls, 0), 1e-12)
    close(aux["sum_sq_diff_grads"], squares_of(calls, 0), 1e-12)
    assert aux["sample_size"] == 15


def averages(calls, k, decay):
    """Moving averages of means and sample variances over the rounds, free of bias."""
    mean = variance = {n: np.zeros(shape) for n, shape in SHAPES.items()}
    steps = len(calls) // k
    for t in range(steps):
        round = calls[t * k : (t + 1) * k]
        now, squares = mean_of(round, 0), squares_of(round, 0)
        mean = {n: decay * mean[n] + (1 - decay) * now[n] for n in SHAPES}
        variance = {n: decay * variance[n] + (1 - decay) * squares[n] / (SIZE * k - 1) for n in SHAPES}
    return tuple({n: x[n] / (1 - decay**steps) for n in SHAPES} for x in (mean, variance))


@K
@JIT
@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_averages_of_mean_and_variance(k, wrap, decay, x64):
    calls = gradients(0)
    tx = gt.aggregating.add_mean_variance_to_opt(gt.sgd(0.1), decay, 0, k)
    found, state = run(tx, calls, jnp.float64, wrap)
    close(gt.aggregating.get_unbiased_mean_and_variance_ema(state), averages(calls, k, decay), 1e-10)
    close(found, rounds(calls, k, lambda round: jax.tree.map(lambda m: -0.1 * m, mean_of(round, 0))), 1e-10)
    ema = gt.tree.get(state, "PerElementMeanAndVarianceEMAState")
    assert ema.count == STEPS // k and ema.ema_decay == decay


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.9999, 0.999999])
def test_averages_of_a_constant_are_exact_in_float32(decay):
    """Averages and their weight are of the same rounded decay, and the weight is without cancellation."""
    tx = gt.aggregating.track_per_element_mean_and_variance_with_ema(decay)
    state, ones = tx.init(jnp.ones(2)), jnp.ones(2)
    for _ in range(12):
        _, state = tx.update(ones, state, sum_sq_diff_grads=2 * ones, sample_size=3)
        mean, variance = gt.aggregating.get_unbiased_mean_and_variance_ema(state)
        np.testing.assert_allclose(mean, 1, rtol=2e-6)
        np.testing.assert_allclose(variance, 1, rtol=2e-6)


# Against optax.


def both(name, *arguments):
    return getattr(ours, name)(*arguments), getattr(theirs, name)(*arguments)


CALLS = {
    "mean": lambda k, axis: ("average_per_element_updates", axis),
    "mean of means": lambda k, axis: ("average_incrementally_updates", axis, k),
    "squares": lambda k, axis: ("get_per_element_mean_and_sum_sq_diff_grads", axis, k),
}


@pytest.mark.usefixtures("standard_promotion")
@AXIS
@K
@pytest.mark.parametrize("call", CALLS)
def test_the_same_as_optax(call, k, axis):
    name, *arguments = CALLS[call](k, axis)
    mine, other = both(name, *arguments)
    calls = gradients(axis)
    (found, state), (expected, their_state) = run(mine, calls, jnp.float32), run(other, calls, jnp.float32)
    close(found, expected, 3e-6)
    if call != "squares" or k == 1:
        close(jax.tree.leaves(state), jax.tree.leaves(their_state), 3e-6)


@pytest.mark.usefixtures("standard_promotion")
@K
def test_accumulation_is_the_same_as_optaxs(k):
    calls = gradients(None)
    mine, other = both("accumulate_avg_updates", k)
    (found, state), (expected, their_state) = run(mine, calls, jnp.float32), run(other, calls, jnp.float32)
    close(found, expected, 1e-6)
    assert state._fields == their_state._fields
    close(tuple(state), tuple(their_state), 1e-6)


OPTIMIZERS = {
    "adam": lambda lib: lib.adam(0.1),
    "momentum": lambda lib: lib.chain(lib.clip_by_global_norm(0.5), lib.sgd(lib.linear_schedule(0.1, 0.0, 8), 0.9)),
}


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@K
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_mean_and_variance_beside_an_optimizer_are_optaxs(optimizer, axis, k):
    calls = gradients(axis)
    found, state = run(
        ours.add_mean_variance_to_opt(OPTIMIZERS[optimizer](gt), 0.8, axis, k), calls, jnp.float32, jax.jit
    )
    expected, their_state = run(
        theirs.add_mean_variance_to_opt(OPTIMIZERS[optimizer](optax), 0.8, axis, k), calls, jnp.float32
    )
    close(found, expected, 1e-5 if optimizer == "adam" else 1e-6)
    mine, other = ours.get_unbiased_mean_and_variance_ema(state), theirs.get_unbiased_mean_and_variance_ema(their_state)
    close(mine, other, 2e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@K
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_process_is_optaxs(axis, k):
    def made(lib, place):
        clip = lib.clip(0.9)
        return place.process(clip, place.average_incrementally_updates(axis, k), lib.adam(0.1))

    calls = gradients(axis)
    found, state = run(made(gt, ours), calls, jnp.float32)
    expected, their_state = run(made(optax, theirs), calls, jnp.float32)
    close(found, expected, 1e-6)
    close(jax.tree.leaves(state), jax.tree.leaves(their_state), 2e-6)


@pytest.mark.usefixtures("standard_promotion")
def test_parts_of_optax_are_taken():
    """An aggregator and an optimizer of optax, and an aggregator made by hand that takes no extra arguments."""
    calls = gradients(0)
    expected, _ = run(
        gt.aggregating.aggregate(gt.identity(), gt.aggregating.average_incrementally_updates(0, 2), gt.adam(0.1)),
        calls,
        "float32",
    )
    mixed = gt.aggregating.aggregate(optax.identity(), theirs.average_incrementally_updates(0, 2), optax.adam(0.1))
    close(run(mixed, calls, "float32")[0], expected, 1e-6)

    def update(per_elt_updates, state, params=None):
        return jax.tree.map(lambda g: jnp.mean(g, 0), per_elt_updates), state

    by_hand = ours.process(gt.identity(), ours.Aggregator(lambda params: (), update), gt.sgd(0.1))
    found, _ = run(by_hand, calls, "float32", value=jnp.float32(1.0))
    close(found, [jax.tree.map(lambda m: -0.1 * m, mean_of([g], 0)) for g in calls], 1e-6)


@pytest.mark.parametrize("post", ["identity", "scale", "clip_by_global_norm"])
def test_what_keeps_the_axis_of_elements_is_finished_as_optaxs(post):
    params, g = {"w": jnp.ones(3)}, {"w": jnp.arange(12.0).reshape(4, 3)}

    def keeping(m, place):
        return place.process(m.identity(), m.identity(), getattr(m, post)(*([] if post == "identity" else [2.0])))

    mine, other = keeping(gt, ours), keeping(optax, theirs)
    found, expected = (tx.update(g, tx.init(params), params)[0] for tx in (mine, other))
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-6)
    with pytest.raises(ValueError, match=r"^scale_by_adam: at \['w'\]: "):
        tx = gt.aggregating.aggregate(gt.identity(), gt.identity(), gt.scale_by_adam())
        tx.update(g, tx.init(params), params)
