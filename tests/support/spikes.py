# SPDX-License-Identifier: Apache-2.0
"""Gradients that spike, in NumPy float64, and what a transformation makes of them."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

STEPS = 100
SPIKES = (30, 31, 47, 70)
SHAPES = {"w": (4, 3), "v": (5,), "s": ()}


def gradients(steps: int = STEPS, spikes: tuple[int, ...] = SPIKES, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Normal numbers that shrink slowly; at the spikes, those of "w" are 50 times as large and one of "v" 200 times."""
    rng = np.random.default_rng(seed)
    found = []
    for t in range(steps):
        g = {n: rng.normal(size=shape) * 0.99**t for n, shape in SHAPES.items()}
        if t in spikes:
            g["w"] *= 50
            g["v"][1] *= 200
        found.append(g)
    return found


def spoiled(g: dict[str, np.ndarray], name: str, value: float) -> dict[str, np.ndarray]:
    """The gradients with one element of a parameter replaced."""
    g = {n: np.array(x) for n, x in g.items()}
    g[name][(0,) * g[name].ndim] = value
    return g


def run(tx: Any, sequence: list[dict[str, np.ndarray]], dtype: Any = np.float64) -> tuple[list[dict], list]:
    """The updates, and the states after them."""
    params = {n: jnp.ones(shape, dtype) for n, shape in SHAPES.items()}
    update, state = jax.jit(tx.update), tx.init(params)
    updates, states = [], []
    for g in sequence:
        u, state = update({n: jnp.asarray(x, dtype) for n, x in g.items()}, state, params)
        updates.append({n: np.asarray(x) for n, x in u.items()})
        states.append(state)
    return updates, states


def norm(g: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(x**2) for x in g.values())))


def assert_equal(found: list[dict], expected: list[dict], rtol: float = 1e-12) -> None:
    for t, (u, e) in enumerate(zip(found, expected, strict=True)):
        for n in e:
            np.testing.assert_allclose(u[n], e[n], rtol=rtol, atol=rtol, err_msg=f"{n} at step {t}")


def same_but_what_happened(a: Any, b: Any) -> None:
    """Two states have the same statistics; the steps they counted and the numbers they publish may differ."""
    about_the_last = {"count", "clipped", "norm", "threshold", "clip_factor", "clipped_fraction"}
    for name in set(a._fields) - about_the_last:
        chex.assert_trees_all_equal(getattr(a, name), getattr(b, name))
