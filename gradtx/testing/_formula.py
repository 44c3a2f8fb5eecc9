# SPDX-License-Identifier: Apache-2.0
"""The clause that a transformation is its formula: the parameters after some steps are those of a NumPy reference."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gradtx.testing._case import Case, as_numpy
from gradtx.testing._compare import Broken, leaves_with_paths, require, same_structure

Reference = Callable[[list[Any], Any], Any]
"""The whole run in NumPy: from the gradients of each step and the first parameters, to the last parameters."""

STEPS = 20
TOLERANCE = 1e-9


def is_formula(case: Case, reference: Reference) -> str:
    """After 20 steps in float64, the parameters are those of the formula; the sentence says how exactly."""
    draws = np.random.default_rng(7)

    def drawn(p: np.ndarray) -> np.ndarray:
        return draws.normal(size=p.shape) * 10.0 ** draws.uniform(-2, 1)

    params = jax.tree.map(lambda p: np.asarray(p, np.float64), as_numpy(case.params))
    gradients = [jax.tree.map(drawn, params) for _ in range(STEPS)]
    with jax.enable_x64(True):
        start = jax.tree.map(jax.numpy.asarray, params)
        wide = case.like(start, jax.tree.map(jax.numpy.asarray, gradients[0]))
        steps = (jax.tree.map(jax.numpy.asarray, g) for g in gradients)
        state, found = wide.tx.init(start), start
        for g in steps:
            now = wide.like(start, g)
            _, state, found = now.step(g, state, found)
        found = as_numpy(found)
    wanted = reference([as_numpy(g) for g in gradients], as_numpy(params))
    same_structure("the parameters of the formula", wanted, "the parameters", found)
    worst = 0.0
    for (path, a), b in zip(leaves_with_paths(found), jax.tree.leaves(wanted), strict=True):
        b = np.asarray(b, np.float64)
        require(a.shape == b.shape, f"at {path} the formula has shape {b.shape}, the parameters {a.shape}")
        by = float(np.max(np.abs(a - b) / np.maximum(1, np.abs(b)), initial=0))
        if not by < TOLERANCE:  # NaN too
            raise Broken(f"after {STEPS} steps in float64, the parameters at {path} are {by:.1e} away from the formula")
        worst = max(worst, by)
    return f"After {STEPS} steps in float64, the parameters are those of the formula, up to {worst:.0e}."
