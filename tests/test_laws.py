# SPDX-License-Identifier: Apache-2.0
"""What every factory of gradtx promises, for all of them: the contract, being a value, and what hyperparameters may be.

A new factory is here by itself if its annotations give examples of its required arguments; else it needs a line in
`EXPLICIT`.
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
from gradtx import precision
from gradtx.core.call import Factory
from gradtx.core.factory import REGISTRY
from gradtx.core.ranges import Floating, Range, is_number
from gradtx.inspect import describe
from gradtx.testing import check_contract, example_arguments
from gradtx.testing.case import example_gradients, make_case
from gradtx.testing.clauses import keeps_state_types
from gradtx.testing.compare import numbers

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.full(3, 0.5, jnp.float32)}
GRADIENTS = example_gradients(PARAMS)
SCALES = jnp.asarray([1.0, 1.25, 1.5])

FACTORIES: dict[str, Factory] = {f.name: f for f in REGISTRY.values() if f.module.startswith("gradtx.")}


# Functions for the table below. They are here, with names, so that they print and pickle.


def halve_tree(updates, params):
    return jax.tree.map(lambda g: g * jnp.asarray(0.5, g.dtype), updates)


def halve(g, p):
    return 0.5 * g


def only_matrices(params):
    return jax.tree.map(lambda p: jnp.ndim(p) == 2, params)


def as_columns(params):
    return jax.tree.map(lambda p: gradtx.MuonDimensionNumbers(0, 1) if jnp.ndim(p) == 2 else _column(p), params)


def _column(p):
    return gradtx.MuonDimensionNumbers(tuple(range(jnp.ndim(p))), ())


def by_rank(params):
    return jax.tree.map(lambda p: "matrix" if jnp.ndim(p) == 2 else "rest", params)


def half_square(params):
    """A loss of any tree of parameters."""
    squares = [jnp.sum(jnp.square(p.astype(jnp.float32))) for p in jax.tree.leaves(params)]
    return 0.5 * sum(squares, start=jnp.zeros([], jnp.float32))


def every_second(step, **extra):
    return step % 2 == 1


def boxed(state):
    return {"state": state}


def unboxed(box):
    return box["state"]


FUNCTIONS = (halve_tree, halve, only_matrices, as_columns, by_rank, every_second, boxed, unboxed)
NAMES = {**vars(precision), **vars(gradtx), **{f.__name__: f for f in FUNCTIONS}}

EXPLICIT: dict[str, Callable[[], Any]] = {
    "chain": lambda: _make("chain")(_make("scale")(0.5), _make("scale_by_adam")()),
    "named_chain": lambda: _make("named_chain")(("first", _make("scale")(0.5)), ("second", _make("trace")(0.9))),
    "stateless": lambda: _make("stateless")(halve_tree),
    "stateless_with_tree_map": lambda: _make("stateless_with_tree_map")(halve),
    "MultiSteps": lambda: _make("MultiSteps")(_make("adam")(0.1), 2),
    "aggregate": lambda: _make("aggregate")(_make("identity")(), _make("accumulate_avg_updates")(2), example("adam")),
    "average_incrementally_updates": lambda: _make("average_incrementally_updates")(None, 2),
    "add_mean_variance_to_opt": lambda: _make("add_mean_variance_to_opt")(example("adam")),
    "freeze": lambda: _make("freeze")(only_matrices),
    "selective_transform": lambda: _make("selective_transform")(_make("adam")(0.1), freeze_mask=only_matrices),
    "partition": lambda: _make("partition")({"matrix": _make("adam")(0.1), "rest": _make("sgd")(0.1)}, by_rank),
    "masked": lambda: _make("masked")(_make("scale_by_adam")(), only_matrices),
    "differentially_private_aggregate": lambda: _make("differentially_private_aggregate")(1.0, 0.5, 3),
    "dpsgd": lambda: _make("dpsgd")(0.1, 1.0, 0.5, 3),
    "mechanize": lambda: _make("mechanize")(_make("sgd")(0.1), s_init=0.1),
    "trac": lambda: _make("trac")(_make("sgd")(0.1), eps=0.1),
    "primal_averaging": lambda: _make("primal_averaging")(_make("adamw")(0.1)),
    "flatten": lambda: _make("flatten")(_make("scale_by_adam")()),
    "snapshot": lambda: _make("snapshot")("norm", gradtx.global_norm),
    "monitor": lambda: _make("monitor")({"norm": gradtx.global_norm, "slow": example("measure_with_ema")}),
    "measure_with_ema": lambda: _make("measure_with_ema")(gradtx.global_norm, 0.9),
    "record_metrics": lambda: _make("record_metrics")(_make("clip")(1.0), ("update_norm", "clip_fraction")),
    "repack_state": lambda: _make("repack_state")(_make("scale_by_adam")(), boxed, unboxed),
    "lookahead": lambda: _make("lookahead")(_make("adam")(0.1), 2, 0.8),
    "apply_if_finite": lambda: _make("apply_if_finite")(_make("scale_by_adam")(), 2),
    "conditionally_mask": lambda: _make("conditionally_mask")(_make("scale_by_adam")(), every_second),
    "conditionally_transform": lambda: _make("conditionally_transform")(_make("scale_by_adam")(), every_second),
    "dynamic_loss_scale": lambda: _make("dynamic_loss_scale")(_make("scale_by_adam")(), 1024.0, 2),
    "groups": lambda: _make("groups")([("**", {"learning_rate": gradtx.times(0.5)})], _make("adam")(0.1)),
    "graft": lambda: _make("graft")(_make("sign_sgd")(1.0), _make("adam")(0.1)),
    "guard": lambda: _make("guard")(_make("scale_by_adam")(), gradtx.norm_spike(4, warmup=2)),
    "sam": lambda: _make("sam")(_make("adam")(0.1), _make("chain")(_make("normalize")(), _make("sgd")(0.05))),
    "schedule_free": lambda: _make("schedule_free")(_make("sgd")(0.1), 0.1),
    "split_real_and_imaginary": lambda: _make("split_real_and_imaginary")(_make("scale_by_adam")()),
    "with_master_params": lambda: _make("with_master_params")(_make("adamw")(0.1), _make("error_bits")(8)),
    "with_roles": lambda: _make("with_roles")((("**", gradtx.Role()),), _make("adam")(0.1)),
    "reset_every": lambda: _make("reset_every")(_make("scale_by_adam")(), 2),
    "stored": lambda: _make("stored")(_make("adam")(0.1), precision.int8(2), min_size=0),
    "unstacked": lambda: _make("unstacked")(_make("scale_by_adam")()),
    "round_stochastically": lambda: _make("round_stochastically")(0),
    "scale_by_muon": lambda: _make("scale_by_muon")(weight_dimension_numbers=as_columns),
    "scale_by_matrix_shape": lambda: _make("scale_by_matrix_shape")(weight_dimension_numbers=as_columns),
    "low_rank": lambda: _make("low_rank")(_make("scale_by_adam")(), 1, method="completed"),
    "cautious": lambda: _make("cautious")(_make("scale_by_adam")()),
    "with_gradient_signs": lambda: _make("with_gradient_signs")(_make("scale_by_adam")()),
    "decay_weights": lambda: _make("decay_weights")(0.1, "corrected", learning_rate=0.01, max_learning_rate=0.02),
}
"""Calls of the factories for which the annotations give no example."""

EXTRA: dict[str, dict[str, Any]] = {
    "gauss_newton_bartlett": {"sampled_grad": lambda params: params},
    "hutchinson_estimator_diag_hessian": {"obj_fn": half_square},
    "sam": {"grad_fn": lambda params, i: params},
    "scale_by_sophia": {"obj_fn": half_square},
    "sophia": {"obj_fn": half_square},
    "sophia_g": {"sampled_grad": lambda params: params},
    "track_per_element_mean_and_variance_with_ema": {
        "sum_sq_diff_grads": jax.tree.map(jnp.square, GRADIENTS),
        "sample_size": jnp.asarray(3, jnp.int32),
    },
}
"""Keyword arguments that the `update` of some factories needs, besides those that every factory takes or ignores."""

PER_EXAMPLE = {
    "add_mean_variance_to_opt",
    "average_per_element_updates",
    "differentially_private_aggregate",
    "dpsgd",
    "get_per_element_mean_and_sum_sq_diff_grads",
}
"""Their gradients have an axis more than their updates: see tests/transforms/test_privacy.py and
tests/wrappers/test_aggregating.py."""

FIXED = {("aggregate", "aggregator_has_aux")}
"""Flags that the other arguments of the example decide."""

MEASURES = {"measure_with_ema"}
"""What their update returns is a measurement: see tests/transforms/test_monitoring.py."""


def extra_arguments(name: str) -> dict[str, Any]:
    return {"value": jnp.asarray(1.5, jnp.float32), "grad": GRADIENTS, "value_fn": half_square, **EXTRA.get(name, {})}


def _make(name: str) -> Callable:
    return FACTORIES[name].public


@functools.cache
def example(name: str) -> Any:
    return EXPLICIT[name]() if name in EXPLICIT else _make(name)(**example_arguments(FACTORIES[name]))


def _without_example() -> dict[str, str]:
    found = {}
    for name in FACTORIES:
        try:
            example(name)
        except (TypeError, ValueError) as error:
            found[name] = str(error)
    return found


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


WITHOUT_EXAMPLE = _without_example()
COVERED = [n for n in FACTORIES if n not in {*WITHOUT_EXAMPLE, *PER_EXAMPLE, *MEASURES}]
RANGES = [(n, h) for n in COVERED for h, spec in FACTORIES[n].specs.items() if isinstance(spec, Range)]
NUMBERS = [(n, h) for n in COVERED for h in FACTORIES[n].hyperparameters if _legal(with_number, n, h)]
SWITCHES = [(n, s) for n in COVERED for s in _switches(FACTORIES[n]) if (n, s) not in FIXED and _legal(changed, n, s)]

each_factory = pytest.mark.parametrize("name", COVERED)


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
    assert numbers <= set(record.specs), "annotate them with a range of gradtx.core.ranges"


@pytest.mark.slow
@each_factory
def test_contract(name: str):
    check_contract(example(name), PARAMS, **extra_arguments(name))


def assert_state_types_stay(tx: Any, extra: dict[str, Any]) -> None:
    for dtypes, case in make_case(tx, PARAMS, None, 1, extra).mixes.items():
        keeps_state_types(f"{tx!r} with {dtypes}", case)


@each(SWITCHES)
def test_state_types_with_every_switch(name: str, hyperparameter: str):
    assert_state_types_stay(changed(name, hyperparameter), extra_arguments(name))


# A transformation is a value.


@each_factory
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


@each(NUMBERS)
def test_other_calls_are_not_equal(name: str, hyperparameter: str):
    tx = with_number(name, hyperparameter)
    value = tx.arguments[hyperparameter]
    assert tx != tx.replace(**{hyperparameter: math.nextafter(value, 0.3)})


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


@each_factory
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


# Every numeric hyperparameter takes a number, an array, a traced array or a schedule.


def trajectory(tx: Any, **extra: Any) -> tuple[Any, Any]:
    """Final parameters and state, and the updates of all steps; `scan` sees to it that types stay."""

    def body(carry: tuple, scale: jax.Array) -> tuple:
        params, state = carry
        gradients = jax.tree.map(lambda g: scale * g, GRADIENTS)
        updates, state = tx.update(gradients, state, params, **extra)
        return (gradtx.apply_updates(params, updates), state), updates

    return jax.lax.scan(body, (PARAMS, tx.init(PARAMS)), SCALES)


@functools.cache
def expected(tx: Any, name: str) -> Any:
    return trajectory(tx, **extra_arguments(name))


def assert_close(have: Any, want: Any) -> None:
    """Equal up to rounding. A number is folded in double precision, an array is not: 1 - 0.999 differs by 5e-5."""
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        a, b = numbers(a), numbers(b)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.max(np.abs(b), initial=0)))


def _constant(value: float) -> Callable:
    return lambda count: jnp.asarray(value, jnp.float32)


def assert_schedules_equal(name: str, plain: Any, hyperparameters: list[str]) -> None:
    tx = plain.replace(**{h: _constant(plain.arguments[h]) for h in hyperparameters})
    extra = extra_arguments(name)
    (params, _), updates = trajectory(tx, **extra)
    (want, _), want_updates = expected(plain, name)
    assert_close((params, updates), (want, want_updates))
    assert_state_types_stay(tx, extra)


@pytest.mark.slow
@each_factory
def test_constant_schedules_equal_the_numbers(name: str):
    plain = example(name)
    assert_schedules_equal(name, plain, [h for n, h in NUMBERS if n == name and is_number(plain.arguments[h])])


@pytest.mark.slow
@each([(n, h) for n, h in NUMBERS if not is_number(example(n).arguments[h])])
def test_a_constant_schedule_in_the_place_of_none_equals_the_number(name: str, hyperparameter: str):
    assert_schedules_equal(name, with_number(name, hyperparameter), [hyperparameter])


@pytest.mark.slow
@each_factory
def test_arrays_equal_the_numbers(name: str):
    tx = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), example(name))
    extra = extra_arguments(name)
    traced = jax.jit(lambda tx: trajectory(tx, **extra))(tx)
    assert_close(traced, expected(example(name), name))
    updates, _ = tx.update(jax.tree.map(lambda g: g * SCALES[0], GRADIENTS), tx.init(PARAMS), PARAMS, **extra)
    assert_close(updates, jax.tree.map(lambda u: u[0], traced[1]))


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


@each(RANGES)
def test_illegal_values_are_errors(name: str, hyperparameter: str):
    for value in illegal(FACTORIES[name].specs[hyperparameter]):
        with pytest.raises((ValueError, TypeError), match=f"^{name}: {hyperparameter} must be .* got "):
            example(name).replace(**{hyperparameter: value})
