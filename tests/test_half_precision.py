# SPDX-License-Identifier: Apache-2.0
"""With float16 parameters and gradients, every factory does what it does in float32: no overflow, no underflow, no NaN.

float16 ends at 65,504, and below 6e-8 there is only 0. The squares of the gradients here lie beyond both.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_laws import COVERED, example, extra_arguments

PARAMS = {
    "w": jnp.asarray(np.linspace(-1, 1, 1000).reshape(40, 25), jnp.float16),
    "b": jnp.asarray([0.5, -0.25, 1.0], jnp.float16),
}
SIZES = (0.0, 300.0, 1e-7)
STEPS = 3


def gradients(size: float) -> Any:
    """Of this size, with changing signs. Those of 300 have the norm 9,502."""
    return jax.tree.map(lambda p: _signs(p) * jnp.asarray(size, p.dtype), PARAMS)


def _signs(p: jax.Array) -> jax.Array:
    return jnp.where(jnp.arange(p.size).reshape(p.shape) % 3 == 0, -1, 1).astype(p.dtype)


@functools.cache
def steps(name: str) -> Callable[..., tuple[Any, Any]]:
    """From parameters and gradients to the updates of all steps and the last state; the parameters stay."""
    tx, extra = example(name), extra_arguments(name)

    @jax.jit
    def run(params: Any, g: Any) -> tuple[Any, Any]:
        state, all_updates = tx.init(params), []
        for _ in range(STEPS):
            updates, state = tx.update(g, state, params, **{**extra, "grad": g})
            all_updates.append(updates)
        return all_updates, state

    return run


@pytest.mark.parametrize("name", COVERED)
def test_float16_does_what_float32_does(name: str):
    for size in SIZES:
        half = PARAMS, gradients(size)
        have, state = steps(name)(*half)
        want, _ = steps(name)(*jax.tree.map(lambda x: x.astype(jnp.float32), half))
        for x in jax.tree.leaves((have, state)):
            assert not jnp.issubdtype(x.dtype, jnp.inexact) or np.isfinite(x).all(), f"at gradients of {size}"
        for u, exact in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
            u, exact = np.asarray(u, np.float64), np.asarray(exact, np.float64)
            atol = 1e-6 * np.abs(exact).max()
            np.testing.assert_allclose(u, exact, rtol=0.01, atol=atol, err_msg=f"at gradients of {size}")
