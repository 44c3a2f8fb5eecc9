# SPDX-License-Identifier: Apache-2.0
"""Cases that pin a rule to its formula: a transformation, and the same in NumPy float64 written independently.

A formula is one step on one array, `step(p, g, s, t) -> new p`, where `s` is a dictionary that lives from step to step
and t counts from 1; or, wrapped in `whole_tree`, one step on a dictionary of arrays. Gradients are those of a problem
unless a case has its own, as functions of the parameters and t.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import gradtx
from support import problems

STEPS = 100


def of_problem(params: dict, t: int) -> dict:
    return problems.gradient(params)


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Any]
    step: Callable
    tree: bool = False
    tolerance: float = 1e-10
    gradient: Callable[[dict, int], dict] = of_problem


def whole_tree(step: Callable) -> Callable:
    step.tree = True
    return step


def case(
    make: Callable[[], Any],
    step: Callable,
    name: str | None = None,
    tolerance: float = 1e-10,
    gradient: Callable[[dict, int], dict] = of_problem,
) -> Case:
    return Case(name or repr(make()), make, step, getattr(step, "tree", False), tolerance, gradient)


def run_formula(c: Case, steps: int = STEPS) -> dict:
    params = problems.start()
    memory: dict = {} if c.tree else {n: {} for n in params}
    for t in range(1, steps + 1):
        g = c.gradient(params, t)
        if c.tree:
            params = c.step(params, g, memory, t)
        else:
            params = {n: c.step(p, g[n], memory[n], t) for n, p in params.items()}
    return params


def run_rule(
    tx: Any,
    steps: int = STEPS,
    dtype: Any = np.float64,
    jit: bool = False,
    gradient: Callable[[dict, int], dict] = of_problem,
    **extra: Any,
) -> dict:
    """The parameters after some steps of a transformation, gradients in float64 NumPy."""

    def step(params: dict, state: Any, g: dict) -> tuple[dict, Any]:
        updates, state = tx.update(g, state, params, **extra)
        return gradtx.apply_updates(params, updates), state

    params = {n: jax.numpy.asarray(p, dtype) for n, p in problems.start().items()}
    state, array = tx.init(params), jax.numpy.asarray
    if jit:
        step, array = jax.jit(step), np.asarray  # a compiled program takes NumPy's arrays faster
    for t in range(1, steps + 1):
        g = gradient({n: np.asarray(p, np.float64) for n, p in params.items()}, t)
        params, state = step(params, state, {n: array(x, dtype) for n, x in g.items()})
    return {n: np.asarray(p) for n, p in params.items()}


def deviation(a: dict, b: dict) -> float:
    """The largest difference between two trees, relative where the numbers are larger than 1."""
    return max(float(np.max(np.abs(a[n] - b[n]) / np.maximum(1, np.abs(b[n])))) for n in b)
