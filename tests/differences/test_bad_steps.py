# SPDX-License-Identifier: Apache-2.0
"""Where gradtx's conditional wrappers differ from optax 0.2.8's; what is new in gradtx is in tests/needs (row 14)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")


def every_other(step):
    return step % 2 == 1


CALLS = {
    "apply_if_finite": (2,),
    "conditionally_mask": (every_other,),
    "conditionally_transform": (every_other,),
}
each = pytest.mark.parametrize("name", CALLS)


def make(library, name):
    return getattr(library, name)(library.adam(0.1), *CALLS[name])


MIXED = jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.float32)


@each
def test_optax_needs_gradients_in_the_dtype_of_the_parameters(name):
    tx, (params, g) = make(optax, name), MIXED
    with pytest.raises(TypeError, match="cond branches must have equal output types"):
        tx.update(g, tx.init(params), params)


@each
def test_gradtx_does_not(name):
    tx, (params, g) = make(gt, name), MIXED
    state = tx.init(params)
    for _ in range(2):
        updates, new = tx.update(g, state, params)
        assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
        state = new
    np.testing.assert_allclose(updates, -0.1, rtol=1e-5)


@pytest.mark.parametrize("library", [gt, optax], ids=["gradtx", "optax"])
def test_a_nan_on_one_device_of_several(library):
    """gradtx can be told that gradients are split; optax lets each device decide for itself."""
    split = {"axis_name": "d"} if library is gt else {}
    tx = library.apply_if_finite(library.sgd(1.0), 2, **split)

    def update(g):
        return tx.update(g, tx.init(g), g)[0]

    updates = jax.vmap(update, axis_name="d")(jnp.asarray([1.0, jnp.nan, 1.0]))
    assert np.flatnonzero(updates).tolist() == ([] if library is gt else [0, 2])
