# SPDX-License-Identifier: Apache-2.0
"""The operations that are quick to trace are those of jax.numpy, in their values, dtypes, weak types and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core import _operations as operations
from gradtx.core._calling import called_on_leaves, compiled_outside
from gradtx.core._counts import safe_increment

PAIRS = {
    "add": jnp.add,
    "subtract": jnp.subtract,
    "multiply": jnp.multiply,
    "divide": jnp.divide,
    "minimum": jnp.minimum,
    "maximum": jnp.maximum,
    "differs": jnp.not_equal,
    "exceeds": jnp.greater,
}
OPERANDS = {
    "matrix": jnp.asarray([[1.5, -0.0, jnp.nan], [0.0, 3e38, -1e-40]]),
    "row": jnp.asarray([[2.0, 0.0, jnp.inf]]),
    "column": jnp.asarray([[2.0], [0.1]]),
    "vector": jnp.asarray([2.0, 0.0, -1.0]),
    "scalar": jnp.asarray(0.3, jnp.float32),
    "weak": jnp.asarray(0.3),
    "half": jnp.asarray([1.0, 2.0, 3.0], jnp.bfloat16),
    "whole": jnp.asarray([1, 0, 3]),
    "complex": jnp.asarray([1.0 + 1j, 0.0, 3.0]),
    "zero": 0,
    "one": 1.0,
    "decay": 0.999,
}


def outcome(f, *arrays):
    """The type of what a traced function returns, or the kind of its error."""
    try:
        return jax.make_jaxpr(f)(*arrays).out_avals[0]
    except (TypeError, ValueError) as error:
        return type(error)


@pytest.mark.parametrize("promotion", ["strict", "standard"])
@pytest.mark.parametrize("name", PAIRS)
def test_each_is_that_of_jax_numpy(name: str, promotion: str):
    ours, theirs = getattr(operations, name), PAIRS[name]
    for x, of_x in OPERANDS.items():
        for y, of_y in OPERANDS.items():
            numbers = [isinstance(v, int | float) for v in (of_x, of_y)]
            if all(numbers):
                continue
            arrays = [v for v, is_number in zip((of_x, of_y), numbers, strict=True) if not is_number]

            def run(f, *arrays, numbers=numbers, of_x=of_x, of_y=of_y):
                left = iter(arrays)
                return f(of_x if numbers[0] else next(left), of_y if numbers[1] else next(left))

            with jax.numpy_dtype_promotion(promotion):
                have, want = (outcome(lambda *xs, f=f, run=run: run(f, *xs), *arrays) for f in (ours, theirs))
            assert have == want, f"{name} of {x} and {y}"
            if x == "matrix" and y in ("matrix", "row", "column", "scalar", "zero", "decay"):
                have, want = (jax.jit(lambda *xs, f=f, run=run: run(f, *xs))(*arrays) for f in (ours, theirs))
                np.testing.assert_array_equal(have, want, err_msg=f"{name} of {x} and {y}")


@pytest.mark.parametrize("name", PAIRS)
def test_arrays_of_one_rank_are_one_operation_and_others_are_promoted(name: str):
    ours, matrix = getattr(operations, name), OPERANDS["matrix"]
    (equation,) = jax.make_jaxpr(ours)(matrix, matrix).eqns
    assert not equation.primitive.call_primitive and "jaxpr" not in equation.params
    with jax.numpy_rank_promotion("allow"):
        for arrays in ((matrix, OPERANDS["vector"]), (OPERANDS["vector"], matrix)):
            np.testing.assert_array_equal(jax.jit(ours)(*arrays), PAIRS[name](*arrays))


def test_select_is_where():
    conditions = {"matrix": OPERANDS["matrix"] > 0, "row": OPERANDS["row"] > 0, "scalar": jnp.asarray(True)}
    cases = {k: v for k, v in OPERANDS.items() if k not in ("double", "weak")}
    cases |= {"number": np.float32(2.0), "other": np.float32(3.0)}
    for c in conditions.values():
        for x, of_x in cases.items():
            for y, of_y in cases.items():
                have = outcome(lambda c, x=of_x, y=of_y: operations.select(c, x, y), c)
                want = outcome(lambda c, x=of_x, y=of_y: jnp.where(c, x, y), c)
                assert have == want, f"{x} or {y}"
    matrix = OPERANDS["matrix"]
    for y in (0, OPERANDS["row"], OPERANDS["scalar"]):
        have, want = (jax.jit(lambda x, f=f, y=y: f(x > 0, x, y))(matrix) for f in (operations.select, jnp.where))
        np.testing.assert_array_equal(have, want)
    assert "jit" not in str(jax.make_jaxpr(lambda x: operations.select(x > 0, x, 0))(OPERANDS["matrix"]))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums(axis, keepdims: bool):
    for x in (OPERANDS["column"], OPERANDS["column"].astype(jnp.bfloat16), OPERANDS["column"] > 1):
        have = jax.jit(lambda x: operations.sum_of(x, axis, keepdims))(x)
        want = jax.jit(lambda x: jnp.sum(x, axis=axis, keepdims=keepdims))(x)
        assert (have.dtype, have.shape) == (want.dtype, want.shape)
        np.testing.assert_array_equal(have, want)


def test_a_number_that_changes_nothing_is_no_operation():
    def nothing(x):
        x = operations.add(operations.subtract(x, 0.0), 0)
        return operations.divide(operations.multiply(1, operations.multiply(x, 1.0)), 1)

    assert not jax.make_jaxpr(nothing)(jnp.ones(3)).eqns
    some = jax.make_jaxpr(lambda x: operations.divide(1, operations.subtract(0, x)))(jnp.ones(3))
    assert [e.primitive.name for e in some.eqns] == ["sub", "div"]


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32, jnp.float32])
def test_counts_saturate_inside_and_outside_of_jit(dtype):
    limits = jnp.finfo(dtype) if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype)
    for count, wanted in ((0, 1), (41, 42), (limits.max, limits.max)):
        for run in (safe_increment, jax.jit(safe_increment)):
            found = run(jnp.asarray(count, dtype))
            assert found.dtype == dtype and found == jnp.asarray(wanted, dtype)


def test_what_is_compiled_where():
    ran = []

    def f(x, y):
        ran.append(x)
        return x + y

    once, x = compiled_outside(f), jnp.ones(3)
    once(x, x), once(x, x)
    assert len(ran) == 1
    assert "jit" not in str(jax.make_jaxpr(lambda x: once(once(x, x), x))(x)).replace("name=add", "")
    few = called_on_leaves(lambda a, x: jax.lax.mul(x, x), at=1)
    many = called_on_leaves(lambda a, x: jax.lax.sin(jax.lax.cos(jax.lax.exp(jax.lax.neg(x)))), at=1)
    names = [e.primitive.name for e in jax.make_jaxpr(lambda x: many((), few((), x)))(x).eqns]
    assert names[0] == "mul" and names[1] != "sin" and len(names) == 2
    np.testing.assert_array_equal(few((), x), x)
