# SPDX-License-Identifier: Apache-2.0
"""Numbers, gradients and parameters that have no meaning where they stand are errors that name them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.states import ScheduleFreeState

PARAMS = {"w": jnp.ones((2, 3))}


@pytest.mark.parametrize("rate", [-1e-3, math.inf, -math.inf, np.float64(-0.1), jnp.asarray(math.inf)])
def test_learning_rates(rate: Any):
    makers = (
        gradtx.adam,
        gradtx.sgd,
        gradtx.lbfgs,
        gradtx.scale_by_lr,
        lambda r: gradtx.sgd(0.1).replace(learning_rate=r),
    )
    for make in makers:
        with pytest.raises(ValueError, match="learning_rate must be a finite number >= 0, got"):
            make(rate)
    assert gradtx.sgd(0.0) and gradtx.scale(-1.0) and gradtx.scale_by_schedule(lambda step: -1.0)


@pytest.mark.parametrize("make", [gradtx.adamw, gradtx.lion, gradtx.lamb, gradtx.muon, gradtx.adamw8bit])
def test_weight_decays(make: Any):
    with pytest.raises(ValueError, match="weight_decay must be a finite number >= 0, got inf"):
        make(0.1, weight_decay=math.inf)


@pytest.mark.parametrize("step_size", [1.5, -0.1, math.nan, jnp.asarray(2.0), np.ones(2)])
def test_incremental_update(step_size: Any):
    with pytest.raises(ValueError, match=r"incremental_update: step_size must be a scalar in \[0, 1\], got"):
        gradtx.tree.incremental_update(PARAMS, PARAMS, step_size)


def test_complex_gradients_of_real_parameters():
    gradients = jax.tree.map(lambda p: jax.lax.complex(p, p), PARAMS)
    for tx in (gradtx.sgd(0.1), gradtx.adam(0.1), gradtx.MultiSteps(gradtx.sgd(0.1), 2)):
        with pytest.raises(ValueError, match=r"gradient at \['w'\] is complex, its parameter is real \(float32\)"):
            tx.update(gradients, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"update at \['w'\] is complex, its parameter is real \(float32\)"):
        gradtx.apply_updates(PARAMS, gradients)


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8"])
def test_fractions_do_not_move_whole_numbers(dtype: str):
    params = {"w": jnp.ones(2), "n": jnp.ones(2, dtype)}
    with pytest.raises(TypeError, match=rf"the parameter at \['n'\] is {dtype} and cannot take an update of float32"):
        gradtx.apply_updates(params, {"w": jnp.ones(2), "n": jnp.full(2, 0.1)})
    kept = gradtx.apply_updates(params, {"w": jnp.ones(2), "n": None})
    np.testing.assert_array_equal(kept["n"], params["n"])


def test_whole_numbers_move_by_whole_numbers():
    assert gradtx.apply_updates({"n": jnp.int32(3)}, {"n": jnp.int32(2)})["n"] == 5
    assert gradtx.apply_updates({"n": 3}, {"n": 2})["n"] == 5


def test_random_keys_among_the_parameters():
    params = {"w": jnp.ones(2), "layer": {"key": jax.random.key(0)}}
    with pytest.raises(TypeError, match=r"scale_by_adam: the parameter at \['layer'\]\['key'\] is a random key"):
        gradtx.adam(0.1).init(params)
    with pytest.raises(TypeError, match=r"the parameter at \['layer'\]\['key'\] is key<fry> and cannot take"):
        gradtx.apply_updates(params, params)


@pytest.mark.parametrize("make", [gradtx.sgd, gradtx.adamw, gradtx.lion, gradtx.schedule_free_sgd, gradtx.lbfgs])
def test_rates_do_not_widen_updates(make: Any, x64: None):
    params = {"w": jnp.ones((2, 3), jnp.float32)}
    extra = {"value": jnp.float32(1.0), "grad": params, "value_fn": lambda p: jnp.sum(p["w"] ** 2)}
    for rate in (0.1, np.float64(0.1), np.asarray(0.1), np.float32(0.1)):
        tx = make(rate)
        updates = jax.eval_shape(lambda p, tx=tx: tx.update(p, tx.init(p), p, **extra)[0], params)
        assert updates["w"].dtype == jnp.float32
    assert gradtx.sgd(np.float64(0.1)) == gradtx.sgd(0.1) and repr(gradtx.sgd(np.float64(0.1))) == "sgd(0.1)"


def test_counts_do_not_wrap():
    tx = gradtx.schedule_free_sgd(0.1)
    state = jax.tree.map(
        lambda s: s._replace(step_count=jnp.int32(2**31 - 1)) if isinstance(s, ScheduleFreeState) else s,
        tx.init(PARAMS),
        is_leaf=lambda s: isinstance(s, ScheduleFreeState),
    )
    _, state = tx.update(PARAMS, state, PARAMS)
    assert 2**31 - 1 in [int(x) for x in jax.tree.leaves(state) if x.ndim == 0 and x.dtype == jnp.int32]
