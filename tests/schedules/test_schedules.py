# SPDX-License-Identifier: Apache-2.0
"""Every schedule against its formula in NumPy float64 and against optax, and what all schedules promise.

The cases are in `tests/support/schedules.py`.
"""

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.schedules
import pytest

import gradtx
from gradtx.schedules._schedule import Schedule
from support.public import NAMES, SCHEDULES
from support.schedules import CASES, Case

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.call)


def traced(value: Schedule) -> tuple[Callable[..., jax.Array], list[jax.Array]]:
    """The schedule as a function of its numbers and the count, and the numbers."""
    leaves, structure = jax.tree.flatten(value)
    return lambda numbers, t: jax.tree.unflatten(structure, numbers)(t), [jnp.asarray(float(x)) for x in leaves]


def close(actual: Any, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=tolerance, atol=tolerance / 10)


def test_every_schedule_is_tested():
    called = {call.split("(")[0] for call in (c.call for c in CASES)}
    called |= {"ademamix_alpha_schedule", "ademamix_b3_schedule"}  # in test_ademamix.py
    assert called == {n for n, x in SCHEDULES.items() if hasattr(x, "factory")}
    operations = {name for c in CASES for name in re.findall(r"\)\.(\w+)\(", c.call)}
    assert operations == {n for n, x in vars(Schedule).items() if hasattr(x, "factory") and "__" not in n}


@every_case
@pytest.mark.parametrize("dtype", ["int32", "int64", "float64"])
def test_formula(case: Case, dtype: str, x64: None):
    for t in case.steps + ([] if dtype != "float64" else case.smooth_steps):
        value = case.schedule(np.asarray(t, dtype))
        assert (value.dtype, value.weak_type, value.shape) == (jnp.float64, False, ())
        close(value, case.formula(t), 1e-12)


@pytest.mark.slow
@every_case
def test_compiled_mapped_scanned_and_with_traced_numbers(case: Case, x64: None):
    function, numbers = traced(case.schedule)

    @jax.jit
    def run(numbers: list, counts: jax.Array) -> tuple:
        scanned = jax.lax.scan(lambda t, _: (t + 1, case.schedule(t)), jnp.int32(0), length=25)[1]
        return jax.vmap(case.schedule)(counts), jax.vmap(function, (None, 0))(numbers, counts), scanned

    constant, variable, scanned = run(numbers, jnp.asarray(case.steps))
    for values in constant, variable, case.schedule(jnp.asarray(case.steps)):
        close(values, [case.formula(t) for t in case.steps], 1e-12)
    close(scanned, [case.formula(t) for t in range(25)], 1e-12)


@pytest.mark.slow
@every_case
def test_derivatives(case: Case, x64: None):
    """Finite everywhere, in both modes, and those of the formula where it has them: compared with differences."""
    function, numbers = traced(case.schedule)
    smooth = len(case.smooth_steps)
    counts = jnp.asarray([*case.smooth_steps, *case.steps], float)

    @jax.jit
    def run(numbers: list, counts: jax.Array) -> tuple:
        both = [jax.vmap(d(function, (0, 1)), (None, 0))(numbers, counts) for d in (jax.jacrev, jax.jacfwd)]
        return jax.vmap(function, (None, 0))(numbers, counts), *map(jax.tree.leaves, both)

    def shifted(i: int, h: float) -> jax.Array:
        moved = [x + h * (i == j) for j, x in enumerate([*numbers, counts])]
        return run(moved[:-1], moved[-1])[0]

    _, backward, forward = run(numbers, counts)
    for i, (one, other) in enumerate(zip(backward, forward, strict=True)):
        assert np.isfinite(one).all()
        close(one, other, 1e-9)
        close(one[:smooth], ((shifted(i, 1e-6) - shifted(i, -1e-6)) / 2e-6)[:smooth], 1e-6)


@every_case
def test_value_semantics(case: Case):
    value = case.schedule
    again = case._replace(call=repr(value)).schedule
    assert repr(value) == case.call
    assert again == value == pickle.loads(pickle.dumps(value)) == copy.deepcopy(value)
    assert hash(again) == hash(value)
    assert value != gradtx.linear_schedule(1.0, 0.25, 10)


@pytest.mark.slow
@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "Python"])
def test_the_value_has_the_dtype_of_the_count(case: Case, dtype: str):
    value = case.schedule(5.0 if dtype == "Python" else jnp.asarray(5, dtype))
    assert (value.dtype, value.weak_type) == (jnp.float32 if dtype == "Python" else dtype, False)
    close(value, case.formula(5), {"bfloat16": 0.05, "float16": 0.01}.get(dtype, 2e-6))


CYCLE = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 9, "end_value": 0.1}
CALLS_OF_OPTAX = [
    *(
        c.call
        for c in CASES
        if hasattr(optax.schedules, c.call.split("(")[0]) and "cycle" not in c.call and ")." not in c.call
    ),
    "piecewise_constant_schedule(0.8)",
    "piecewise_constant_schedule(0.8, {20: 0.0, 0: 0.5})",
    "linear_schedule(0.0, 1.0, 10, 5)",
    "polynomial_schedule(-1.0, 0.1, 0, 10)",
    "exponential_decay(1.0, 10, 0.8, end_value=2.0)",
    "exponential_decay(1.0, 10, 1.0, end_value=0.5)",
    "exponential_decay(-1.0, 10, 0.8, end_value=-0.3)",
    "cosine_decay_schedule(0.8, 10)",
    "cosine_decay_schedule(0.8, 10, 2.0, 0.0)",
    "warmup_exponential_decay_schedule(0.1, 1.0, 0, 10, 0.8)",
    "warmup_exponential_decay_schedule(0.1, 1.0, 5, 10, 0.8, 2, True, 0.5)",
    f"sgdr_schedule([{CYCLE}])",
    "piecewise_interpolate_schedule('cosine', 0.8, {10: 0.5, 0: 0.1})",
    "piecewise_interpolate_schedule('linear', 0.8)",
    "linear_onecycle_schedule(23, 0.5, 0.4, 0.7, 10.0, 100.0)",
    "cosine_onecycle_schedule(1, 0.5)",
]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("call", CALLS_OF_OPTAX)
def test_the_numbers_of_optax(call: str, dtype: str, tolerance: float, x64: None):
    """Equal up to a part of the greatest value: near its end optax computes small values as a difference of large."""
    counts = jnp.asarray([*range(41), 1000, 10**6], dtype)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = np.asarray(jax.vmap(eval(call, vars(optax.schedules)))(counts), np.float64)
    ours = np.asarray(eval(call, dict(NAMES))(counts), np.float64)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())
