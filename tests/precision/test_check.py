# SPDX-License-Identifier: Apache-2.0
"""What is said of the steps of an optimizer and the precision of the parameters before a run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {
    "dense": {"kernel": (0.02 * jax.random.normal(jax.random.key(1), (64, 64))).astype(jnp.bfloat16)},
    "norm": jnp.ones(100, jnp.bfloat16),
    "out": jnp.ones(3, jnp.float32),
    "count": jnp.arange(3),
    "none": None,
}
STAGES = [gradtx.round_stochastically(0), gradtx.compensate(), gradtx.error_bits(8), gradtx.keep_master()]


def rows(report):
    return {row.path: row for row in report.rows}


def test_adam_with_a_small_rate_loses_what_is_smaller_than_half_an_ulp():
    report = gradtx.precision.check_precision(gradtx.adam(1e-4), PARAMS)
    found = rows(report)
    assert list(found) == ["dense/kernel", "norm", "out"]
    assert found["norm"].lost == 1.0 and found["norm"].size == 1.0 and found["norm"].needed == 2.0**-8
    np.testing.assert_allclose(found["norm"].step, 1e-4, rtol=1e-5)
    assert 0 < found["dense/kernel"].lost < 0.5 and found["out"].lost == 0
    assert not report.ok and report.lossy[0].path == "norm"
    text = str(report)
    assert "norm          bfloat16  1     0.0001  0.0039   100 %" in text and "keep_master()" in text


@pytest.mark.slow
def test_large_enough_steps_are_all_right():
    report = gradtx.precision.check_precision(gradtx.adam(1e-2), PARAMS)
    assert report.ok and report.lossy == ()
    assert str(report) == "The updates of all 3 parameters are large enough for their precision."


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_with_a_rounding_stage_nothing_is_lost(stage):
    inner = gradtx.chain(gradtx.adam(1e-4), stage)
    for tx in (inner, gradtx.masked(inner, True), gradtx.with_roles((("**", gradtx.Role()),), inner)):
        assert gradtx.precision.check_precision(tx, PARAMS).ok
    not_last = gradtx.chain(stage, gradtx.adam(1e-4))
    assert not gradtx.precision.check_precision(not_last, PARAMS).ok


def test_schedules_are_read_where_their_updates_are_largest():
    rate = gradtx.warmup_cosine_decay_schedule(0.0, 1e-2, 100, 10_000)
    assert gradtx.precision.check_precision(gradtx.adam(rate), PARAMS).ok
    assert not gradtx.precision.check_precision(gradtx.adam(rate), PARAMS, steps=(0, 1)).ok


def test_gradients_matter_to_descent():
    gradients = {**jax.tree.map(jnp.ones_like, PARAMS), "count": None}
    assert gradtx.precision.check_precision(gradtx.sgd(1e-2), PARAMS, gradients).ok
    small = jax.tree.map(lambda g: g * jnp.asarray(1e-3, g.dtype), gradients)
    assert not gradtx.precision.check_precision(gradtx.sgd(1e-2), PARAMS, small).ok


def test_float16_and_extra_arguments():
    params = {"w": jnp.ones(8, jnp.float16)}
    assert not gradtx.precision.check_precision(gradtx.adam(1e-4), params).ok
    assert gradtx.precision.check_precision(gradtx.adam(1e-3), params).ok
    report = gradtx.precision.check_precision(gradtx.polyak_sgd(), params, value=jnp.asarray(1.0, jnp.float32))
    assert len(report.rows) == 1


def test_many_parameters_are_one_line():
    params = {f"w{i}": jnp.ones(2, jnp.bfloat16) for i in range(30)}
    lines = str(gradtx.precision.check_precision(gradtx.lion(1e-4), params)).splitlines()
    assert len(lines) == 1 + 20 + 1 + 1 and lines[-2] == "... and 10 more"


@pytest.mark.usefixtures("standard_promotion")
def test_other_libraries_can_be_checked():
    assert not gradtx.precision.check_precision(optax.adam(1e-4), {"norm": PARAMS["norm"]}).ok


def test_errors():
    with pytest.raises(TypeError, match="check_precision: tx must be a transformation"):
        gradtx.precision.check_precision(1e-4, PARAMS)
    with pytest.raises(ValueError, match="check_precision: steps must name a step"):
        gradtx.precision.check_precision(gradtx.adam(1e-4), PARAMS, steps=())
