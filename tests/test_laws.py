# SPDX-License-Identifier: Apache-2.0
"""What every factory of gradtx promises, for all of them: the contract, being a value, and what hyperparameters may be.

A new factory is here by itself, as an example of its call in `support.registry` is.
"""

import functools
import math
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import describe
from gradtx.core._calls import Factory
from gradtx.core._factory import REGISTRY
from gradtx.core._ranges import Floating, Range, is_number
from gradtx.testing import check_contract
from gradtx.testing._case import make_case
from gradtx.testing._clauses import keeps_state_types
from gradtx.testing._compare import numbers
from support import public
from support.registry import (
    COVERED,
    EXPLICIT,
    EXTRA,
    FACTORIES,
    FUNCTIONS,
    GRADIENTS,
    PARAMS,
    WITHOUT_EXAMPLE,
    example,
    extra_arguments,
    in_turns,
    sample,
)

SCALES = jnp.asarray([1.0, 1.25, 1.5])
NAMES = {**public.NAMES, **{f.__name__: f for f in FUNCTIONS}, **{n: f.public for n, f in FACTORIES.items()}}

BFLOAT16 = slice(1, 2)
"""Of the mixes of dtypes, the one whose states and updates a float32 value of a schedule would widen."""

FIXED = {("aggregate", "aggregator_has_aux"), ("zero", "scatter")}
"""Flags that the other arguments of the example decide, or that have a meaning in `shard_map` only."""


def with_number(name: str, hyperparameter: str) -> Any:
    """The example, with a number for a hyperparameter that is None by default."""
    tx = example(name)
    if is_number(tx.arguments[hyperparameter]):
        return tx
    return tx.replace(**{hyperparameter: FACTORIES[name].specs[hyperparameter].example})


def _legal(make: Callable, *arguments: Any) -> bool:
    """Whether a change of the example can be made: some arguments exclude each other."""
    try:
        make(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def changed(name: str, parameter: str) -> Any:
    """The example with a flag turned, or with bfloat16 for what is stored."""
    record, tx = FACTORIES[name], example(name)
    is_dtype = isinstance(record.specs.get(parameter), Floating)
    return tx.replace(**{parameter: jnp.bfloat16 if is_dtype else not tx.arguments[parameter]})


def _switches(record: Factory) -> list[str]:
    flags = [n for n, hint in record.hints.items() if hint is bool]
    return flags + [n for n, spec in record.specs.items() if isinstance(spec, Floating)]


def numbers_of(name: str) -> list[str]:
    return [h for h in FACTORIES[name].hyperparameters if _legal(with_number, name, h)]


NONES = [(n, h) for n in COVERED for h in numbers_of(n) if not is_number(example(n).arguments[h])]
SWITCHES = [(n, s) for n in COVERED for s in _switches(FACTORIES[n]) if (n, s) not in FIXED and _legal(changed, n, s)]

each_factory = pytest.mark.parametrize("name", COVERED)
each_that_prints = pytest.mark.parametrize("name", [n for n in COVERED if n != "zero"])
"""Meshes have no expression that makes them, and hold devices, which cannot be pickled."""


def each(pairs: list[tuple[str, str]]) -> Any:
    return pytest.mark.parametrize(("name", "hyperparameter"), pairs, ids=["-".join(pair) for pair in pairs])


def test_every_factory_has_an_example():
    assert WITHOUT_EXAMPLE == {}, "give each of these a line in EXPLICIT"
    assert len(FACTORIES) == len([f for f in REGISTRY.values() if f.module.startswith("gradtx.")]), "one name, twice"
    assert set(EXPLICIT) | set(EXTRA) <= set(FACTORIES), "these are gone: remove their lines"


@each_factory
def test_every_number_has_a_range(name: str):
    record = FACTORIES[name]
    assert [p for p in record.signature.parameters if p not in record.hints] == [], "without an annotation"
    numbers = {p.name for p in record.signature.parameters.values() if is_number(p.default)}
    assert numbers <= set(record.specs), "annotate them with a range of gradtx.core._ranges"


@pytest.mark.slow
@pytest.mark.parametrize("name", in_turns())
def test_contract(name: str):
    check_contract(example(name), PARAMS, **extra_arguments(name))


@pytest.mark.parametrize("name", sample())
def test_updates_keep_the_types_of_the_state(name: str):
    assert_state_types_stay(example(name), extra_arguments(name))


def assert_state_types_stay(tx: Any, extra: dict[str, Any], mixes: slice = slice(None)) -> None:
    for dtypes, case in list(make_case(tx, PARAMS, None, 1, extra).mixes.items())[mixes]:
        keeps_state_types(f"{tx!r} with {dtypes}", case)


@each(SWITCHES)
def test_state_types_with_every_switch(name: str, hyperparameter: str):
    assert_state_types_stay(changed(name, hyperparameter), extra_arguments(name))


# A transformation is a value.


@each_that_prints
def test_repr_is_the_call(name: str):
    tx = example(name)
    assert repr(tx).startswith(f"{name}(")
    assert eval(repr(tx), dict(NAMES)) == tx


@each_factory
def test_equal_calls_are_equal(name: str):
    tx, again = example(name), example.__wrapped__(name)
    assert tx is not again and tx == again and hash(tx) == hash(again)
    assert tx.factory is FACTORIES[name]
    assert tx.replace() == tx


@each_factory
def test_other_calls_are_not_equal(name: str):
    for hyperparameter in numbers_of(name):
        tx = with_number(name, hyperparameter)
        value = tx.arguments[hyperparameter]
        other = value + 1 if hyperparameter == "every_k_schedule" else math.nextafter(value, 0.3)  # a whole number
        assert tx != tx.replace(**{hyperparameter: other}), hyperparameter


@each_factory
def test_pytree(name: str):
    tx = example(name)
    leaves, treedef = jax.tree.flatten(tx)
    assert all(is_number(x) for x in leaves)
    assert jax.tree.unflatten(treedef, leaves) == tx
    # JAX rebuilds values from placeholders, which no factory could take.
    placeholders = [object() for _ in leaves]
    assert jax.tree.leaves(jax.tree.unflatten(treedef, placeholders)) == placeholders
    assert all(path for path, _ in jax.tree_util.tree_leaves_with_path(tx))


@each_that_prints
def test_pickle(name: str):
    tx = example(name)
    again = pickle.loads(pickle.dumps(tx))
    assert again == tx and repr(again) == repr(tx) and again.factory is tx.factory


@each_factory
def test_what_belongs_to_parameters(name: str):
    """`tree.map_params` and `describe` agree, each in a way of its own, on what of the state belongs to whom."""
    tx = example(name)
    state = jax.eval_shape(tx.init, PARAMS)
    owners = gradtx.tree.map_params(tx, lambda x, n: n, state, {"w": "w", "b": "b"}, transform_non_params=lambda x: "")
    described = [slot.parameter for slot in describe(tx, PARAMS).slots]
    assert sorted(x for x in jax.tree.leaves(owners) if x) == sorted(n for n in described if n)

    def has_its_shape(x: Any, n: str) -> bool:
        return x.shape == PARAMS[n].shape

    shaped = gradtx.tree.map_params(tx, has_its_shape, state, {"w": "w", "b": "b"}, params=PARAMS)
    assert all(x for x in jax.tree.leaves(shaped) if isinstance(x, bool))


# Every numeric hyperparameter takes a number, an array, a traced array or a schedule. Values are those of plain calls,
# without compiling; of what is traced, the types are compared. That compiled steps have the values of plain ones is a
# clause of the contract.


def trajectory(tx: Any, **extra: Any) -> tuple[Any, Any]:
    """Final parameters and state, and the updates of all steps; traced, `scan` sees to it that types stay."""

    def body(carry: tuple, scale: jax.Array) -> tuple:
        params, state = carry
        gradients = jax.tree.map(lambda g: scale * g, GRADIENTS)
        updates, state = tx.update(gradients, state, params, **extra)
        return (gradtx.apply_updates(params, updates), state), updates

    return jax.lax.scan(body, (PARAMS, tx.init(PARAMS)), SCALES)


@functools.cache
def expected(tx: Any, name: str) -> Any:
    with jax.disable_jit():
        return trajectory(tx, **extra_arguments(name))


def assert_close(have: Any, want: Any) -> None:
    """Equal up to rounding. A number is folded in double precision, an array is not: 1 - 0.999 differs by 5e-5."""
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        a, b = numbers(a), numbers(b)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.max(np.abs(b), initial=0)))


def type_of(x: Any) -> tuple:
    return x.shape, x.dtype


def _constant(value: float) -> Callable:
    return lambda count: jnp.asarray(value, jnp.float32)


def assert_schedules_equal(name: str, plain: Any, hyperparameters: list[str]) -> None:
    tx = plain.replace(**{h: _constant(plain.arguments[h]) for h in hyperparameters})
    extra = extra_arguments(name)
    with jax.disable_jit():
        (params, _), updates = trajectory(tx, **extra)
    (want, _), want_updates = expected(plain, name)
    assert_close((params, updates), (want, want_updates))
    assert_state_types_stay(tx, extra, BFLOAT16)


@pytest.mark.slow
@pytest.mark.parametrize("name", in_turns())
def test_constant_schedules_equal_the_numbers(name: str):
    plain = example(name)
    assert_schedules_equal(name, plain, [h for h in numbers_of(name) if is_number(plain.arguments[h])])


@pytest.mark.slow
@each(NONES)
def test_a_constant_schedule_in_the_place_of_none_equals_the_number(name: str, hyperparameter: str):
    assert_schedules_equal(name, with_number(name, hyperparameter), [hyperparameter])


@pytest.mark.slow
@pytest.mark.parametrize("name", in_turns())
def test_arrays_equal_the_numbers(name: str):
    tx = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), example(name))
    extra = extra_arguments(name)
    with jax.disable_jit():
        found = trajectory(tx, **extra)
    assert_close(found, expected(example(name), name))
    traced = jax.eval_shape(lambda tx: trajectory(tx, **extra), tx)
    assert jax.tree.map(type_of, traced) == jax.tree.map(type_of, found)


@pytest.mark.parametrize("name", [n for n in COVERED if example(n).expanded is example(n) or n in ("galore", "dpsgd")])
def test_a_vector_in_the_place_of_a_number_is_refused(name: str):
    for h in numbers_of(name):
        number = with_number(name, h).arguments[h]
        vector = jnp.full(3, number, jnp.float32)
        for value in (vector, lambda count, vector=vector: vector):
            tx = example(name).replace(**{h: value})
            with pytest.raises(ValueError, match="must be a scalar at each step, got shape .3,."):
                tx.init(PARAMS)
                tx.update(GRADIENTS, tx.init(PARAMS), PARAMS, **extra_arguments(name))


def illegal(spec: Range) -> list[Any]:
    values: list[Any] = [math.nan, "text"]
    kind = int if spec.integer else float
    if spec.low != -math.inf:
        values.append(kind(spec.low) if spec.low_open else kind(spec.low) - 1)
    if spec.high != math.inf:
        values.append(kind(spec.high) if spec.high_open else kind(spec.high) + 1)
    if not spec.integer:
        values += [np.float32(x) for x in values[2:]] + [jnp.asarray(math.nan)]
    return values


@each_factory
def test_illegal_values_are_errors(name: str):
    ranges = {h: spec for h, spec in FACTORIES[name].specs.items() if isinstance(spec, Range)}
    for hyperparameter, value in [(h, x) for h, spec in ranges.items() for x in illegal(spec)]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}: {hyperparameter} must be .* got "):
            example(name).replace(**{hyperparameter: value})
