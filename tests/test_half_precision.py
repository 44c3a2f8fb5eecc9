# SPDX-License-Identifier: Apache-2.0
"""With float16 parameters and gradients, every factory does what it does in float32: no overflow, no underflow, no NaN.

float16 ends at 65,504, and below 6e-8 there is only 0. The squares of the gradients here lie beyond both.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from support.registry import COVERED, example, extra_arguments

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


def check(tx: Any, extra: dict[str, Any]) -> None:
    @jax.jit
    def steps(params: Any, g: Any) -> tuple[Any, Any]:
        """The last state and the updates of all steps; the parameters stay."""

        def step(state: Any, _: None) -> tuple[Any, Any]:
            of_its_shapes = {n: g for n in ("grad", "sum_sq_diff_grads") if n in extra}
            updates, state = tx.update(g, state, params, **{**extra, **of_its_shapes})
            return state, updates

        return jax.lax.scan(step, tx.init(params), length=STEPS)

    for size in SIZES:
        half = PARAMS, gradients(size)
        state, have = steps(*half)
        _, want = steps(*jax.tree.map(lambda x: x.astype(jnp.float32), half))
        for x in jax.tree.leaves((have, state)):
            assert not jnp.issubdtype(x.dtype, jnp.inexact) or np.isfinite(x).all(), f"at gradients of {size}"
        for u, exact in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
            u, exact = np.asarray(u, np.float64), np.asarray(exact, np.float64)
            # Updates leave in float16, in which the smallest step is 6e-8; so does what a test's own function returns.
            atol = max(1e-3 * np.abs(exact).max(), 6e-8)
            np.testing.assert_allclose(u, exact, rtol=0.01, atol=atol, err_msg=f"at gradients of {size}")


ROUNDING = {"compensate", "error_bits", "keep_master", "round_stochastically", "with_master_params", "adamw_bf16"}
"""Their updates lead to what float16 holds: see tests/precision/test_rounding_stages.py."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in COVERED if n not in ROUNDING])
def test_float16_does_what_float32_does(name: str):
    check(example(name), extra_arguments(name))


def test_arithmetic_in_float16_is_noticed():
    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda g: g / jnp.sqrt(1 + jnp.sum(g * g)), updates), state

    with pytest.raises(AssertionError, match="at gradients of 300"):
        check(gradtx.GradientTransformation(lambda params: (), update), {})
