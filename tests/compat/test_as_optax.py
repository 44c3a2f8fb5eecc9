# SPDX-License-Identifier: Apache-2.0
"""`as_optax`: for code that asks for objects of optax's own class."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.compat import as_optax

PARAMS = {"w": jnp.asarray([1.0, -2.0])}


def test_it_is_one_of_optaxs():
    tx = as_optax(gt.adam(0.1))
    assert isinstance(tx, optax.GradientTransformation) and isinstance(tx, optax.GradientTransformationExtraArgs)
    init, update = tx
    updates, state = jax.jit(update)(PARAMS, init(PARAMS), PARAMS, value=1.0)
    expected, _ = gt.adam(0.1).update(PARAMS, gt.adam(0.1).init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-6)
    assert isinstance(state[0], gt.states.ScaleByAdamState)


@pytest.mark.usefixtures("standard_promotion")
def test_inside_optax():
    tx = optax.chain(optax.clip(1.0), as_optax(gt.sgd(0.5)))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], [-0.5, 0.5])


def test_a_pair_of_functions_without_extra_arguments():
    pair = gt.GradientTransformation(lambda params: (), lambda updates, state, params=None: (updates, state))
    assert as_optax(pair).update(PARAMS, (), None, value=1.0)[0] is PARAMS


def test_what_is_no_transformation():
    with pytest.raises(TypeError, match=r"as_optax: tx must be a transformation, got the factory adam: call it"):
        as_optax(gt.adam)


def test_optax_is_imported_by_the_call_only():
    script = """
import sys
import gradtx
from gradtx.compat import as_optax, optax
assert "optax" not in sys.modules
sys.modules["optax"] = None  # as if it were not installed
try:
    as_optax(gradtx.sgd(0.1))
except ImportError as error:
    assert "pip install optax" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
