# SPDX-License-Identifier: Apache-2.0
"""Measuring updates: what is kept, when, in which types, and what becomes of values that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.testing._compare import same_types

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
GRADS = [jax.tree.map(lambda p, s=scale: s * p, PARAMS) for scale in (3.0, 1.0, 2.0)]


def largest(updates):
    return jnp.max(jnp.stack([jnp.max(jnp.abs(u)) for u in jax.tree.leaves(updates)] or [jnp.zeros([])]))


def norm_of_each(updates):
    return jax.tree.map(lambda u: jnp.sqrt(jnp.sum(u**2)), updates)


def run(tx, gradients, params=PARAMS, **extra):
    state, found = tx.init(params), []
    for g in gradients:
        u, state = jax.jit(tx.update)(g, state, params, **extra)
        jax.tree.map(np.testing.assert_array_equal, u, g)
        found.append(state)
    return found


def test_a_snapshot_is_of_the_last_updates():
    states = run(gt.snapshot("largest", largest), GRADS)
    assert [float(s.measurement["largest"]) for s in states] == [3.0, 1.0, 2.0]
    assert [gt.metrics(s) for s in states] == [{"largest": 3.0}, {"largest": 1.0}, {"largest": 2.0}]


def test_before_the_first_update_a_measurement_is_zero():
    """Optax has the measure of the parameters there: tests/needs/test_metrics.py."""
    for tx in (gt.snapshot("m", largest), gt.monitor({"m": largest})):
        assert gt.metrics(tx.init(PARAMS)) == {"m": 0.0}


def test_a_moving_average_is_the_formula(x64):
    values = np.array([3.0, 1.0, 2.0])
    gradients = [jnp.asarray([v, -v / 2]) for v in values]
    params = jnp.ones(2)
    for debias in (True, False):
        tx = gt.monitor({"slow": gt.measure_with_ema(largest, 0.7, debias)})
        m = 0.0
        for t, (v, state) in enumerate(zip(values, run(tx, gradients, params), strict=True), 1):
            m = 0.7 * m + 0.3 * v
            expected = m / (1 - 0.7**t) if debias else m
            np.testing.assert_allclose(state.measurements["slow"], expected, rtol=1e-14)


@pytest.mark.usefixtures("standard_promotion")
def test_the_same_measurements_and_states_as_optax_after_an_update():
    ours, theirs = (
        lib.monitor({"norm": optax.tree.norm, "slow": lib.measure_with_ema(optax.tree.norm, 0.9)})
        for lib in (gt, optax)
    )
    state, their_state = ours.init(PARAMS), theirs.init(PARAMS)
    for g in GRADS:
        _, state = ours.update(g, state)
        _, their_state = theirs.update(g, their_state)
        rows, their_rows = map(jax.tree_util.tree_leaves_with_path, (state, their_state))
        for (path, a), (their_path, b) in zip(rows, their_rows, strict=True):
            assert (path, a.dtype, a.shape) == (their_path, b.dtype, b.shape)
            np.testing.assert_allclose(a, b, rtol=1e-5)
        snapshots = [lib.snapshot("norm", optax.tree.norm) for lib in (gt, optax)]
        found = [tx.update(g, tx.init(PARAMS))[1].measurement["norm"] for tx in snapshots]
        np.testing.assert_allclose(*found, rtol=1e-6)


def test_trees_of_measurements_publish_their_scalars():
    state = run(gt.monitor({"norms": norm_of_each, "signs": lambda u: jnp.sign(u["b"])}), GRADS)[-1]
    seen = gt.metrics(state)
    assert set(seen) == {"norms.w", "norms.b"}
    np.testing.assert_allclose(seen["norms.w"], 2 * 6**0.5, rtol=1e-6)
    np.testing.assert_array_equal(state.measurements["signs"], np.ones(3))


def test_metrics_have_their_names_in_a_chain():
    tx = gt.chain(gt.monitor({"before": largest}), gt.clip(0.5), gt.monitor({"after": largest}), gt.sgd(0.1))
    _, state = tx.update(GRADS[0], tx.init(PARAMS), PARAMS)
    assert gt.metrics(state) == {"before": 3.0, "after": 0.5}


def test_a_decay_may_be_a_schedule():
    decay = gt.linear_schedule(0.5, 0.9, 10)
    tx = gt.monitor({"slow": gt.measure_with_ema(largest, decay, debias=False)})
    states = run(tx, GRADS)
    seen = gt.metrics(states[-1], tx)
    np.testing.assert_allclose(seen.pop("decay"), 0.58, rtol=1e-6)
    m = 0.0
    for t, v in enumerate((3.0, 1.0, 2.0)):
        m = (0.5 + 0.04 * t) * m + (0.5 - 0.04 * t) * v
    np.testing.assert_allclose(seen["slow"], m, rtol=1e-6)


@pytest.mark.parametrize("params_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("gradient_dtype", [jnp.float32, jnp.bfloat16])
def test_types_stay_and_are_at_least_float32(params_dtype, gradient_dtype):
    tx = gt.monitor({"largest": largest, "slow": gt.measure_with_ema(norm_of_each, 0.9)})
    params = jax.tree.map(lambda p: p.astype(params_dtype), PARAMS)
    grads = jax.tree.map(lambda p: p.astype(gradient_dtype), PARAMS)
    start = tx.init(params)
    (end,) = run(tx, [grads], params)
    same_types("after", end, "before", start)
    assert {x.dtype for x in jax.tree.leaves(end)} == {np.dtype("float32"), np.dtype("int32")}


def test_measurements_of_whole_numbers_and_of_complex_numbers():
    tx = gt.monitor({"positive": lambda u: jnp.sum(u["w"] > 0), "sum": lambda u: jnp.sum(u["z"])})
    params = {"w": jnp.ones(3), "z": jnp.ones(2, jnp.complex64)}
    (state,) = run(tx, [params], params)
    assert state.measurements["positive"] == 3 and state.measurements["positive"].dtype == jnp.int32
    assert state.measurements["sum"].dtype == jnp.complex64


def test_averages_of_whole_numbers_and_of_complex_numbers():
    def positive(u):
        return jnp.sum(u["w"] > 0)

    tx = gt.monitor(
        {"n": gt.measure_with_ema(positive, 0.5), "z": gt.measure_with_ema(lambda u: jnp.sum(u["z"]), 0.5, False)}
    )
    params = {"w": jnp.ones(3), "z": 1j * jnp.ones(2, jnp.complex64)}
    states = run(tx, [params, {**params, "w": -params["w"]}], params)
    assert [float(s.measurements["n"]) for s in states] == pytest.approx([3.0, 1.0])
    assert [complex(s.measurements["z"]) for s in states] == pytest.approx([1j, 1.5j])


def test_the_dtype_of_an_average_can_be_chosen():
    tx = gt.measure_with_ema(largest, 0.9, accumulator_dtype=jnp.bfloat16)
    state = tx.init(PARAMS)
    assert state[1].ema.dtype == jnp.bfloat16
    assert tx.update(GRADS[0], state)[1][1].ema.dtype == jnp.bfloat16


def test_a_measurement_that_is_not_finite_does_not_spoil_an_average():
    bad = [jax.tree.map(lambda g, x=x: g * x, GRADS[0]) for x in (jnp.nan, jnp.inf)]
    tx = gt.monitor({"now": largest, "slow": gt.measure_with_ema(largest, 0.9)})
    states = run(tx, [bad[0], GRADS[0], bad[1], GRADS[0]])
    assert [float(s.measurements["slow"]) for s in states] == pytest.approx([0.0, 3.0, 3.0, 3.0], rel=1e-5)
    assert np.isnan(states[0].measurements["now"]) and np.isinf(states[2].measurements["now"])
    assert states[3].measure_states[1][1].count == 2


def test_measures_of_other_libraries_and_of_the_parameters():
    """A measure that is a transformation gets everything that `update` gets."""

    def update(updates, state, params=None, *, value):
        return gt.global_norm(params) + value, state

    measure = optax.GradientTransformationExtraArgs(lambda params: (), update)
    tx = gt.monitor({"m": measure})
    with pytest.raises(TypeError, match="value"):
        tx.init(PARAMS)  # what it returns is not known without its arguments

    def tolerant(updates, state, params=None, *, value=0.0):
        return update(updates, state, params, value=value)

    tx = gt.monitor({"m": optax.GradientTransformationExtraArgs(lambda params: (), tolerant)})
    (state,) = run(tx, [GRADS[0]], value=jnp.asarray(2.0))
    assert state.measurements["m"] == 5.0


def test_whole_number_parameters_are_left_out():
    params = {"w": jnp.ones(2), "step": jnp.int32(3)}
    grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True)(params)
    tx = gt.snapshot("largest", lambda u: jnp.max(jnp.abs(u["w"])))
    u, state = tx.update(grads, tx.init(params), params)
    assert state.measurement["largest"] == 2.0 and u["step"].dtype == jax.dtypes.float0


def test_a_measure_with_another_shape_is_an_error():
    for tx, where in (
        (gt.snapshot("all", lambda u: u["b"]), "snapshot: 'all'"),
        (gt.monitor({"all": lambda u: u["b"]}), "monitor: 'all'"),
        (gt.monitor({"all": gt.measure_with_ema(lambda u: u["b"], 0.9)}), "measure_with_ema: measure"),
    ):
        with pytest.raises(ValueError, match=rf"{where} has shapes \(2,\) .* had \(3,\) for the parameters at init"):
            tx.update({"w": PARAMS["w"], "b": jnp.ones(2)}, tx.init(PARAMS))


def test_bad_arguments():
    with pytest.raises(TypeError, match="snapshot: measure_name must be a text, got 1"):
        gt.snapshot(1, largest)
    with pytest.raises(TypeError, match="snapshot: measure must be a function of the updates"):
        gt.snapshot("m", gt.measure_with_ema(largest, 0.9))
    with pytest.raises(TypeError, match="monitor: the names in measures must be texts, got 1"):
        gt.monitor({1: largest})
    with pytest.raises(TypeError, match="monitor: 'm' must be a function of the updates or a transformation, got 3"):
        gt.monitor({"m": 3})
    with pytest.raises(TypeError, match="measure_with_ema: measure must be a function"):
        gt.measure_with_ema(3, 0.9)
    with pytest.raises(ValueError, match="measure_with_ema: decay must be in"):
        gt.measure_with_ema(largest, 1.0)
    for tx in (gt.snapshot("m", largest), gt.monitor({"m": largest}), gt.measure_with_ema(largest, 0.9)):
        with pytest.raises(TypeError, match="the order is update"):
            tx.update(PARAMS, PARAMS, tx.init(PARAMS))
