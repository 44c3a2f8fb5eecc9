# SPDX-License-Identifier: Apache-2.0
"""Gradients of any size that a dtype holds: every optimizer stays finite, and moves what float64 would move.

What does not stands here by its reason, and in docs/bad_steps.md.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from support.registry import COVERED, FACTORIES, example, half_square, turns

NAMES = [n for n in COVERED if FACTORIES[n].module.startswith("gradtx.optimizers")]

SIZES = np.array([1e-30, 1e-24, 1e-20, 1e-12, 6e-8, 1e-5, 1e-2, 1.0, 1e2, 6e4, 1e8, 1e12, 1e17, 1e20, 1e30])
ROOT = 1.8e19
"""The largest number whose square is one in float32."""

NAN_BEYOND_ROOT = {"adamg", "came", "dadapt_sgd", "qhadam", "yogi", "sgd_sai"}
NAN_BEYOND_ROOT |= {f"scale_by_{x}" for x in ("adamg", "came", "dadapt_sgd", "initial_snr", "qhadam", "yogi", "stddev")}
"""They take a difference or a quotient of squares: NaN where others stand still."""

DIFFERENCES = {"madgrad", "scale_by_madgrad", "momo", "momo_adam", "cocob", "scale_by_cocob"}
"""Their updates are differences of two parameters, or are weighed against one: what is below its spacing is 0."""

STILL_BELOW = {"adamg": 1e-19, "dadapt_sgd": 1e-19, "dadapt_adam": 1e-29, "dadapt_adan": 1e-29, "dadapt_adamw": 1e-29}
STILL_BELOW |= {"apollo": 1e-19, "apollo_mini": 1e-19, "dion": 1e-23, "initial_snr": 1e-19, "sgd_sai": 1e-19}
STILL_BELOW |= {"polyak": 1e-19, "polyak_sgd": 1e-19}
STILL_BELOW = {n: size for name, size in STILL_BELOW.items() for n in (name, f"scale_by_{name}") if n in NAMES}
"""Products of squares underflow there, and the update is 0."""

WAITING = {"dion2", "scale_by_dion2"}
"""They move the rows with the largest momentum only, and which these are rounding may decide."""

BEYOND_FLOAT16 = {"schedule_free_plus": 6e-8, "scale_by_aggmo": 6e4, "scale_by_initial_snr": 6e4}
"""Where an update is more than 65504, which float16 calls infinity."""

START = {"w": np.linspace(-1, 1, 6).reshape(2, 3), "b": np.full(3, 0.5)}
DIRECTION = {"w": np.array([[0.5, -1.0, 0.25], [0.75, 0.3, -0.6]]), "b": np.array([0.5, -0.25, 1.0])}


def third_update(name: str, dtype: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The updates of the third step by the size of the gradients, whether the state is finite, whether the gradients
    are numbers of the dtype other than 0.
    """
    tx, params = example(name), {k: jnp.asarray(p, dtype) for k, p in START.items()}
    # XLA makes infinities of what is too large; NumPy warns.
    gradients = {k: jnp.asarray(np.multiply.outer(SIZES, g)).astype(dtype) for k, g in DIRECTION.items()}

    def run(gradients: Any) -> tuple[Any, jax.Array]:
        state, updates = tx.init(params), None
        for i in range(3):
            g = jax.tree.map(lambda x: x * jnp.asarray(1 - i / 4, x.dtype), gradients)  # noqa: B023  # called here
            extra = {"value": jnp.asarray(1.5, jnp.float32), "value_fn": half_square, "obj_fn": half_square}
            extra |= {"grad": g, "sampled_grad": lambda params: params}
            updates, state = tx.update(g, state, params, **extra)
        kept = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
        return updates, jnp.all(jnp.asarray([jnp.all(jnp.isfinite(x.astype(jnp.float32))) for x in kept]))

    updates, finite = jax.jit(jax.vmap(run))(gradients)
    given = [np.asarray(g.reshape(len(SIZES), -1), np.float64) for g in gradients.values()]
    there = np.all([np.all(np.isfinite(g) & (g != 0), axis=1) for g in given], axis=0)
    return {k: np.asarray(u.astype(jnp.float64), np.float64) for k, u in updates.items()}, np.asarray(finite), there


@pytest.mark.slow
@pytest.mark.parametrize("name", [turns(n, i, of=6) for i, n in enumerate(NAMES)])
def test_gradients_of_any_size(name: str):
    with jax.enable_x64(True):
        wanted, _, _ = third_update(name, jnp.float64)
        found = {dtype: third_update(name, dtype) for dtype in (jnp.float32, jnp.bfloat16, jnp.float16)}
    for dtype, (updates, finite, there) in found.items():
        for i in np.flatnonzero(there):
            size, case = SIZES[i], f"{name}, {dtype.__name__}, gradients of {SIZES[i]:g}"
            u = {k: x[i] for k, x in updates.items()}
            if size > ROOT:
                assert name in NAN_BEYOND_ROOT or not any(np.isnan(x).any() for x in u.values()), f"{case}: {u}"
                continue
            assert finite[i], f"{case}: the state is not finite"
            if dtype is jnp.float16 and BEYOND_FLOAT16.get(name) == size:
                continue
            assert all(np.isfinite(x).all() for x in u.values()), f"{case}: {u}"
            if size <= STILL_BELOW.get(name, 0.0) or name in WAITING:
                continue
            for k, x in u.items():
                least = np.full(x.shape, 4 * float(jnp.finfo(dtype).tiny))
                if name in DIFFERENCES:
                    least = np.maximum(least, float(jnp.finfo(dtype).eps) * np.abs(START[k]))
                frozen = (x == 0) & (np.abs(wanted[k][i]) > least)
                assert not frozen.any(), f"{case}: {k} stands still where float64 moves it by {wanted[k][i]}"


def test_the_page_names_what_is_left_out():
    page = (Path(__file__).parent.parent / "docs" / "bad_steps.md").read_text().partition("## Gradients of any size")[2]
    left_out = {*NAN_BEYOND_ROOT, *DIFFERENCES, *STILL_BELOW, *BEYOND_FLOAT16}
    # Stages by the recipes that are made of them.
    recipes = {
        "scale_by_dadapt_adam": "dadapt_adamw",
        "scale_by_initial_snr": "sgd_sai",
        "scale_by_polyak": "polyak_sgd",
    }
    named = {n for n in left_out if f"`{n}`" in page or f"`{recipes.get(n, n.removeprefix('scale_by_'))}`" in page}
    assert left_out == named
