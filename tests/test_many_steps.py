# SPDX-License-Identifier: Apache-2.0
"""Optimizers after 2**24, 20 million and 2**31 - 1 steps: float32 does what float64 does, and no count overflows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from support.registry import COVERED, FACTORIES, example, half_square, turns

NAMES = [n for n in COVERED if FACTORIES[n].module.startswith("gradtx.optimizers")]
NAMES += ["stable_spam_clip", "stabilize_norm"]  # which count the gradients that are finite
DRAWN = {f"{begin}{name}" for name in ("dion", "psgd_kron", "apollo", "apollo_mini") for begin in ("", "scale_by_")}
"""They draw random numbers, which are others in float64."""

COUNTS = np.asarray([2**24 + 1, 20_000_000, 2**31 - 2, 2**31 - 1], np.int32)
START = {"w": np.linspace(-1, 1, 6).reshape(2, 3), "b": np.full(3, 0.5)}
GRADIENTS = {"w": np.array([[0.5, -1.0, 0.25], [0.75, 0.3, -0.6]]), "b": np.array([0.5, -0.25, 1.0])}


def is_count(x: Any) -> bool:
    return x.dtype == jnp.int32 and x.ndim == 0


def steps_from(name: str, dtype: Any) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """The updates of a step whose state says that so many were made, after three real ones, and the counts after it."""
    tx = example(name)
    params, g = ({k: jnp.asarray(x, dtype) for k, x in tree.items()} for tree in (START, GRADIENTS))
    extra = {"value": jnp.asarray(1.5, dtype), "value_fn": half_square, "obj_fn": half_square, "grad": g}
    extra |= {"sampled_grad": lambda params: params}

    def run(count: jax.Array) -> Any:
        state = tx.init(params)
        for i in range(3):
            scaled = jax.tree.map(lambda x: x * jnp.asarray(1 - i / 4, x.dtype), g)  # noqa: B023  # called here
            state = tx.update(scaled, state, params, **extra)[1]
        state = jax.tree.map(lambda x: count if is_count(x) else x, state)
        updates, state = tx.update(g, state, params, **extra)
        return updates, [x for x in jax.tree.leaves(state) if is_count(x)]

    updates, counts = jax.jit(jax.vmap(run))(jnp.asarray(COUNTS))
    return {k: np.asarray(u, np.float64) for k, u in updates.items()}, list(map(np.asarray, counts))


@pytest.mark.slow
@pytest.mark.parametrize("name", [turns(n, i, of=12) for i, n in enumerate(NAMES)])
def test_a_step_after_many(name: str):
    found, counts = steps_from(name, jnp.float32)
    with jax.enable_x64(True):
        wanted, _ = steps_from(name, jnp.float64)
    for k, u in found.items():
        assert np.isfinite(u).all()
        if name in DRAWN:
            continue
        np.testing.assert_allclose(u, wanted[k], rtol=2e-3, atol=2e-3 * np.abs(wanted[k]).max(), err_msg=name)
    for count in counts:
        assert (count >= 0).all(), f"{name}: a count has overflown"
