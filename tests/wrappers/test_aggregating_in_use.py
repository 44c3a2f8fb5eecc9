# SPDX-License-Identifier: Apache-2.0
"""What the parts of `aggregate` get, precision, missing and bad gradients, and errors of aggregators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.elements import SHAPES, as_jax, close, gradients, mean_of, params_of, run

pytestmark = pytest.mark.slow

K = pytest.mark.parametrize("k", [1, 2, 3])


def spy(seen, name, needs=()):
    def update(updates, state, params=None, **extra):
        seen.append((name, params is not None, tuple(sorted(extra))))
        return updates, state + 1

    return gt.GradientTransformationExtraArgs(lambda params: jnp.zeros([], jnp.int32), update, needs=needs)


def test_who_gets_what():
    seen = []
    measure = gt.aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, 2)
    tx = gt.aggregating.aggregate(spy(seen, "first"), measure, spy(seen, "last"), aggregator_has_aux=True)
    _, state = run(tx, gradients(0, 3), jnp.float32, value=1.0)
    last = ("last", True, ("sample_size", "sum_sq_diff_grads", "value"))
    assert [x for x in seen if x[0] == "first"] == [("first", False, ("value",))] * 3
    assert {x for x in seen if x[0] == "last"} == {last}
    assert [int(state[0]), int(state[2])] == [3, 1]
    seen.clear()
    run(
        gt.aggregating.aggregate(spy(seen, "first"), gt.aggregating.accumulate_avg_updates(2), spy(seen, "last")),
        gradients(None, 2),
        "float32",
    )
    assert seen[0] == ("first", True, ())


def test_a_parameter_of_the_name_ready_is_no_flag():
    tx = gt.aggregating.aggregate(gt.identity(), gt.aggregating.accumulate_avg_updates(2), gt.sgd(1.0))
    params = {"ready": jnp.zeros(2)}
    state, found = tx.init(params), []
    for g in (1.0, 3.0):
        updates, state = tx.update({"ready": jnp.full(2, g)}, state, params)
        found.append(float(updates["ready"][0]))
    assert found == [0.0, -2.0]


def test_what_an_update_needs():
    plain = gt.aggregating.accumulate_avg_updates(2)
    assert gt.needs(gt.aggregating.aggregate(gt.identity(), plain, gt.polyak_sgd())) == {"value"}
    assert gt.needs(gt.aggregating.track_per_element_mean_and_variance_with_ema()) == {
        "sum_sq_diff_grads",
        "sample_size",
    }
    tx = gt.aggregating.add_mean_variance_to_opt(gt.polyak_sgd())
    assert gt.needs(tx) == set()
    with pytest.raises(ValueError, match="update needs value"):
        run(tx, gradients(0, 1), jnp.float32)
    run(tx, gradients(0, 1), jnp.float32, value=jnp.float32(1.0))


@K
def test_in_a_scan(k):
    calls = gradients(0)
    tx = gt.aggregating.add_mean_variance_to_opt(gt.adam(0.1), 0.9, 0, k)
    params = params_of(jnp.float32)

    def step(state, g):
        updates, state = tx.update(g, state, params)
        return state, updates

    stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x), jnp.float32), *calls)
    _, found = jax.lax.scan(step, tx.init(params), stacked)
    expected, _ = run(tx, calls, jnp.float32)
    close(found, jax.tree.map(lambda *x: np.stack(x), *expected), 1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_added_up_in_float32(dtype):
    """300² overflows in float16; 1 + 1/256 is 1 in bfloat16."""
    params = jnp.ones(2, dtype)
    for tx in (
        gt.aggregating.accumulate_avg_updates(300),
        gt.aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, 2),
    ):
        state = tx.init(params)
        floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert {x.dtype for x in floats} == {np.dtype("float32")}
    g = jnp.asarray([[300.0, 1.0], [-300.0, 1.0078125], [300.0, 1.0]], dtype)
    (mean, aux), _ = gt.aggregating.get_per_element_mean_and_sum_sq_diff_grads().update(
        g, gt.states.EmptyState(), params
    )
    wide = np.asarray(g, np.float64)
    close(mean, wide.mean(0), 1e-6)
    close(aux["sum_sq_diff_grads"], ((wide - wide.mean(0)) ** 2).sum(0), 1e-5)
    means, _ = gt.aggregating.average_per_element_updates().update(g, gt.states.EmptyState(), params)
    np.testing.assert_array_equal(means, jnp.asarray(wide.mean(0), dtype))  # rounded once
    assert mean.dtype == aux["sum_sq_diff_grads"].dtype == np.float32


def test_leaves_without_a_gradient():
    params = {"w": jnp.ones(2), "frozen": jnp.ones(3)}
    tx = gt.aggregating.add_mean_variance_to_opt(gt.sgd(1.0), 0.5, 0, 2)
    state = tx.init(params)
    for _ in range(4):
        updates, state = tx.update({"w": jnp.asarray([[1.0, 2.0], [3.0, 4.0]]), "frozen": None}, state, params)
    assert updates["frozen"] is None
    np.testing.assert_allclose(updates["w"], [-2.0, -3.0])
    mean, variance = gt.aggregating.get_unbiased_mean_and_variance_ema(state)
    np.testing.assert_array_equal(mean["frozen"], np.zeros(3))
    np.testing.assert_allclose(mean["w"], [2.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(variance["w"], np.full(2, 4 / 3), rtol=1e-6)


def test_complex_gradients():
    rng = np.random.default_rng(3)
    calls = [rng.normal(size=(4, 2)) + 1j * rng.normal(size=(4, 2)) for _ in range(2)]
    params = jnp.ones(2, jnp.complex64)
    tx = gt.aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, 2)
    state = tx.init(params)
    for g in calls:
        (mean, aux), state = tx.update(jnp.asarray(g, jnp.complex64), state, params)
    every = np.concatenate(calls)
    close(mean, every.mean(0), 1e-6)
    close(aux["sum_sq_diff_grads"], (np.abs(every - every.mean(0)) ** 2).sum(0), 1e-5)
    assert aux["sum_sq_diff_grads"].dtype == np.float32
    tx = gt.aggregating.add_mean_variance_to_opt(gt.sgd(1.0), 0.5)
    _, state = tx.update(jnp.asarray(calls[0], jnp.complex64), tx.init(params), params)
    mean, variance = gt.aggregating.get_unbiased_mean_and_variance_ema(state)
    close(mean, calls[0].mean(0), 1e-6)
    close(variance, (np.abs(calls[0] - calls[0].mean(0)) ** 2).sum(0) / 3, 1e-5)


def test_a_bad_round_stays_in_itself():
    params = jnp.zeros(2)
    for tx in (
        gt.aggregating.accumulate_avg_updates(2),
        gt.aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, 2),
    ):
        state, found = tx.init(params), []
        shape = (2,) if tx.factory.name == "accumulate_avg_updates" else (3, 2)
        for x in (jnp.inf, 1.0, 1.0, 1.0, 1e30, 1e30):
            u, state = tx.update(jnp.full(shape, x), state, params)
            found.append(u[0] if isinstance(u, tuple) else u)
        assert not np.isfinite(found[1]).any() and np.all(found[3] == 1.0)
        np.testing.assert_allclose(found[5], 1e30)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_a_scheduled_decay():
    tx = gt.aggregating.add_mean_variance_to_opt(gt.sgd(1.0), gt.piecewise_constant_schedule(0.5, {1: 0.5}))
    params, calls = params_of(jnp.float32), gradients(0, 2)
    state = tx.init(params)
    for g in calls:
        _, state = tx.update(as_jax(g, jnp.float32), state, params)
    ema = gt.tree.get(state, "PerElementMeanAndVarianceEMAState")
    first, second = (mean_of([g], 0) for g in calls)
    close(ema.mean_grads_ema, {n: 0.25 * 0.5 * first[n] + 0.75 * second[n] for n in SHAPES}, 1e-6)
    assert ema.ema_decay == 0.25


# Errors.


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: gt.aggregating.accumulate_avg_updates(0),
            ValueError,
            "accumulation_steps must be a whole number >= 1, got 0",
        ),
        (
            lambda: gt.aggregating.average_per_element_updates(None),
            TypeError,
            "per_elt_axis must be a whole number or several",
        ),
        (
            lambda: gt.aggregating.average_per_element_updates(()),
            TypeError,
            "per_elt_axis must be a whole number or several",
        ),
        (
            lambda: gt.aggregating.aggregate(gt.clip, gt.identity(), gt.identity()),
            TypeError,
            "aggregate: preprocessor must be",
        ),
        (lambda: gt.aggregating.add_mean_variance_to_opt(3), TypeError, "add_mean_variance_to_opt: opt must be"),
        (
            lambda: gt.aggregating.get_unbiased_mean_and_variance_ema(()),
            ValueError,
            "track_per_element_mean_and_variance_with_ema",
        ),
        (
            lambda: run(
                gt.aggregating.aggregate(*[gt.identity()] * 3, aggregator_has_aux=True), gradients(None, 1), "float32"
            ),
            TypeError,
            "must return ..updates, aux., state.",
        ),
        (
            lambda: gt.aggregating.aggregate(*[gt.identity()] * 3).update({}, gt.states.EmptyState()),
            TypeError,
            "the order is update.updates, state, params.",
        ),
        (
            lambda: run(gt.aggregating.add_mean_variance_to_opt(gt.sgd(0.1)), gradients(0, 1, 1), "float32"),
            ValueError,
            "sample_size must be at least 2 for a variance, got 1",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


AGGREGATORS = {
    "average_per_element_updates": lambda axis: gt.aggregating.average_per_element_updates(axis),
    "get_per_element_mean_and_sum_sq_diff_grads": lambda axis: (
        gt.aggregating.get_per_element_mean_and_sum_sq_diff_grads(axis)
    ),
    "accumulating": lambda axis: gt.aggregating.get_per_element_mean_and_sum_sq_diff_grads(axis, 2),
}


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize(
    ("axis", "shapes", "message"),
    [
        (2, {"a": (3, 2), "b": (3, 4)}, r"the gradient at \['a'\] has shape \(3, 2\), without axes \(2,\)"),
        ((0, -2), {"a": (3, 2), "b": (3, 4)}, r"the gradient at \['a'\] has shape \(3, 2\), without axes \(0, -2\)"),
        (0, {"a": (3, 2), "b": (5, 4)}, r"same number of elements, at least 1: got 5 at \['b'\], 3 at \['a'\]"),
        (0, {"a": (0, 2), "b": (0, 4)}, r"at least 1: got 0 at \['a'\]"),
        (0, {"a": (3, 2), "b": (3, 2)}, r"at \['b'\] has shape \(3, 2\), its parameter has shape \(4,\)"),
    ],
)
def test_gradients_that_do_not_fit(name, axis, shapes, message):
    params = {"a": jnp.zeros(2), "b": jnp.zeros(4)}
    tx = AGGREGATORS[name](axis)
    with pytest.raises(ValueError, match=message):
        tx.update({n: jnp.zeros(s) for n, s in shapes.items()}, tx.init(params), params)


def test_batch_size():
    size = gt.aggregating.get_batch_size_from_per_elt_updates
    tree = {"a": jnp.zeros((3, 2)), "none": None, "b": jnp.zeros((3, 4, 5))}
    assert size(tree, 0) == 3 and type(size(tree, 0)) is int
    assert size(jnp.zeros((2, 3, 5)), [0, -1]) == 10
    with pytest.raises(ValueError, match=r"got 4 at \['b'\], 2 at \['a'\]"):
        size(tree, 1)
    with pytest.raises(ValueError, match="there is no gradient"):
        size({}, 0)
