# SPDX-License-Identifier: Apache-2.0
"""`check_contract` passes what keeps the contract and names the clause that a broken transformation breaks."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.testing import check_contract, example_arguments
from gradtx.testing._case import make_case
from gradtx.testing._clauses import keeps_state_types
from gradtx.testing._compare import Broken
from gradtx.testing._contract import CLAUSES

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


class Pair(NamedTuple):
    """The smallest transformation by hand."""

    init: Callable
    update: Callable


class ToyState(NamedTuple):
    count: jax.Array
    mu: Any


@gradtx.transformation
def toy_average(b: gradtx.typing.Decay = 0.9) -> gradtx.GradientTransformationExtraArgs:
    """A moving average."""

    def update(g, mu, p, t):
        mu = b * mu + (1 - b) * g
        return mu, mu

    return gradtx.per_parameter(jnp.zeros_like, update, ToyState)


@gradtx.transformation
def toy_descent(learning_rate: gradtx.typing.ScalarOrSchedule, b: gradtx.typing.Decay = 0.9):
    """Descent along the average."""
    return gradtx.chain(toy_average(b), toy_rate(learning_rate))


@gradtx.transformation
def toy_rate(learning_rate: gradtx.typing.ScalarOrSchedule):
    """A learning rate, which may be a schedule."""
    return gradtx.per_parameter(None, lambda g, slots, p, t: (-learning_rate * g, slots))


@gradtx.transformation
def toy_sizes(size: gradtx.core._ranges.PositiveInt, flag: bool, dtype: gradtx.typing.DType, f: Callable = abs):
    """Parameters of other kinds."""
    return gradtx.identity()


def falling(count):
    return 0.1 / (1 + jnp.asarray(count, jnp.float32))


def stateless(update: Callable) -> Pair:
    """A pair without state from `update(gradients, params)`."""
    return Pair(lambda params: (), lambda g, state, params=None, **extra: (update(g, params), state))


def double(gradients: Any) -> Any:
    return jax.tree.map(lambda g: g * 2, gradients)


def value_at(tree: Any) -> jax.Array:
    return sum((jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)), start=jnp.zeros([]))


class Toys:
    """What keeps the contract."""

    by_hand = stateless(lambda g, params: double(g))
    stage = toy_average()
    recipe = toy_descent(0.1)
    scheduled = toy_descent(falling)
    with_lambda = toy_descent(lambda count: 0.1)
    nested = gradtx.chain(toy_average(), gradtx.named_chain(("a", toy_descent(0.1)), ("b", by_hand)))


KEEPING = [n for n in vars(Toys) if not n.startswith("_")]


@pytest.mark.parametrize("name", KEEPING)
def test_what_keeps_the_contract_passes(name: str):
    check_contract(getattr(Toys, name), PARAMS)


@pytest.mark.parametrize(
    "params",
    [
        jnp.ones((2, 3)),
        jnp.ones([]),
        (jnp.ones(2), [jnp.zeros(3), None]),
        {"half": jnp.ones(2, jnp.bfloat16), "complex": jnp.ones(2, jnp.complex64), "whole": jnp.ones(2, jnp.int32)},
        {"numpy": np.ones(2, np.float32)},
        {},
    ],
    ids=["array", "scalar", "sequences", "dtypes", "NumPy", "empty"],
)
def test_any_tree_of_parameters(params: Any):
    check_contract(toy_descent(0.1), params)


def test_gradients_may_be_given():
    seen = []

    def update(gradients, params):
        seen.append(gradients)
        return gradients

    given = {"w": jnp.full((2, 3), 7.0), "b": jnp.full(3, 8.0)}
    check_contract(stateless(update), PARAMS, gradients=given)
    np.testing.assert_array_equal(seen[0]["w"], given["w"])


def test_a_frozen_copy_is_used_so_that_the_callers_arrays_stay():
    params = {"w": np.ones(2, np.float32)}
    with pytest.raises(AssertionError, match="inputs unchanged"):
        check_contract(stateless(in_place), params)
    np.testing.assert_array_equal(params["w"], np.ones(2))


def test_extra_arguments_reach_update():
    def update(updates, state, params=None, *, value, grad, value_fn, **extra):
        smaller = value_fn(updates) < value
        return jax.tree.map(lambda g, h: jnp.where(smaller, g, h), updates, grad), state

    tx = gradtx.GradientTransformationExtraArgs(lambda params: (), update)
    grad = jax.tree.map(jnp.ones_like, PARAMS)
    check_contract(tx, PARAMS, value=jnp.asarray(0.5), grad=grad, value_fn=value_at)
    with pytest.raises(AssertionError, match="breaks 'updates fit': it raised TypeError: .*value"):
        check_contract(tx, PARAMS)


# One broken transformation, or several, for each clause.


def with_state(init: Callable, update: Callable) -> Pair:
    """A pair from `update(gradients, state, params) -> (updates, state)`."""
    return Pair(init, lambda g, state, params=None, **extra: update(g, state, params))


def in_place(gradients: Any, params: Any) -> Any:
    def halve(g):
        g *= 0.5
        return g

    return jax.tree.map(halve, gradients)


def count_in_place(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
    state["count"] = state["count"] + jnp.ones([])
    return gradients, state


def average(gradients: Any, mu: Any) -> tuple[Any, Any]:
    def add(m, g):
        with jax.numpy_dtype_promotion("standard"):
            return m + g

    mu = jax.tree.map(add, mu, gradients)
    return mu, mu


def own_dtype(gradients: Any, mu: Any, params: Any) -> tuple[Any, Any]:
    return gradients, jax.tree.map(lambda m, g: m + g.astype(m.dtype), mu, gradients)


def wide_average(gradients: Any, mu: Any, params: Any = None) -> tuple[Any, Any]:
    mu = jax.tree.map(lambda m, g: m + g.astype(jnp.float32), mu, gradients)
    return mu, mu


def zeros32(params: Any) -> Any:
    return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)


def remember(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
    return gradients, state if params is None else jax.tree.map(lambda p: p.astype(jnp.float32), params)


def by_key_order(gradients: Any, params: Any) -> Any:
    if not isinstance(gradients, dict):
        return gradients
    return {
        k: jax.tree.map(lambda g, i=i: g * jnp.asarray(i, g.dtype), g) for i, (k, g) in enumerate(gradients.items())
    }


def noise() -> Pair:
    calls = itertools.count()
    return stateless(lambda g, params: jax.tree.map(lambda x: x * jnp.asarray(next(calls), x.dtype), g))


def unless_traced(gradients: Any, params: Any) -> Any:
    return jax.tree.map(lambda g: g if isinstance(g, jax.core.Tracer) else 2 * g, gradients)


def through_numpy(gradients: Any, params: Any) -> Any:
    return jax.tree.map(lambda g: jnp.asarray(np.asarray(g)), gradients)


def grow(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
    return gradients, (*state, jnp.zeros([]))


def change_settings(gradients: Any, params: Any) -> Any:
    other = "high" if jax.config.jax_default_matmul_precision == "highest" else "highest"
    jax.config.update("jax_default_matmul_precision", other)
    return double(gradients)


def mean_of_all(gradients: Any, params: Any) -> Any:
    means = [jnp.mean(jnp.abs(g)).astype(jnp.float32) for g in jax.tree.leaves(gradients)]
    total = sum(means, start=jnp.zeros([]))
    return jax.tree.map(lambda g: g * total.astype(g.dtype), gradients)


def unbatched(gradients: Any, params: Any) -> Any:
    """A call of the host, which has no rule for vmap."""
    return jax.tree.map(lambda g: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(g.shape, g.dtype), g), gradients)


def by_identity() -> Pair:
    """Remembers which states it has made, and adds a last digit to the updates with others."""
    made = []

    def update(gradients, state, params):
        known = any(state is s for s in made)
        made.append(state + jnp.zeros([]))
        more = 0.0 if known else 2.0**-22
        return jax.tree.map(lambda g: g * jnp.asarray(1 + more, g.dtype), gradients), made[-1]

    return with_state(lambda params: jnp.ones([]), update)


def sign_by_division(gradients: Any, params: Any) -> Any:
    return jax.tree.map(lambda g: g / jnp.abs(g), gradients)


def absolute_by_root(gradients: Any, params: Any) -> Any:
    return jax.tree.map(lambda g: jnp.sqrt(g * g), gradients)


def on_one_device(gradients: Any, params: Any) -> Any:
    mesh = jax.sharding.Mesh(jax.devices()[:1], "one")
    return jax.shard_map(double, mesh=mesh, in_specs=jax.P(), out_specs=jax.P())(gradients)


@gradtx.transformation
def uneven() -> gradtx.GradientTransformation:
    """Divides by numbers of which every second is too small for 8 bits beside the first."""

    def init(p):
        return jnp.reshape(jnp.where(jnp.arange(p.size) % 2 == 0, jnp.float32(1.0), jnp.float32(1e-12)), p.shape)

    return gradtx.per_parameter(init, lambda g, s, p, t: (g / s, s), Uneven)


class Uneven(NamedTuple):
    sizes: Any


def first_row(gradients: Any, params: Any) -> Any:
    return jax.tree.map(lambda g: g / jnp.asarray(g.shape[0], g.dtype), gradients)


def fill_holes(gradients: Any, params: Any) -> Any:
    return jax.tree.map(lambda g: jnp.zeros([]) if g is None else g, gradients, is_leaf=lambda x: x is None)


@jax.tree_util.register_pytree_node_class
class Forgetful:
    """A transformation that loses its rate when it is flattened."""

    def __init__(self, rate: float):
        self.rate = rate

    def init(self, params):
        return ()

    def update(self, updates, state, params=None):
        return jax.tree.map(lambda g: g * jnp.asarray(self.rate, g.dtype), updates), state

    def tree_flatten(self):
        return (), None

    @classmethod
    def tree_unflatten(cls, static, leaves):
        return cls(1.0)


def local_state() -> Pair:
    class Local(NamedTuple):
        count: Any

    return with_state(lambda params: Local(jnp.zeros([])), lambda g, state, params: (g, state))


def needs_params(gradients: Any, params: Any) -> Any:
    def add(g, p):
        return None if g is None else g + p.astype(g.dtype)

    return jax.tree.map(add, gradients, params, is_leaf=lambda x: x is None)


def shared_zero(params: Any) -> Any:
    zero = jnp.zeros([])
    return zero, zero


def same(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
    return gradients, state


BROKEN = [
    (
        "updates fit",
        lambda: stateless(lambda g, params: list(g.values())),
        r"structure of the gradients: .*\['b'\] is missing",
    ),
    ("updates fit", lambda: stateless(lambda g, params: {**g, "b": g["b"][None]}), r"at \['b'\] the update has shape"),
    ("updates fit", lambda: stateless(lambda g, params: jax.tree.map(jnp.int32, g)), "int32, which is not floating"),
    ("deterministic", noise, "a second run must equal the first run"),
    ("deterministic", lambda: stateless(by_key_order), "keys inserted in another order"),
    ("inputs unchanged", lambda: stateless(in_place), r"given to update as NumPy arrays .* at \['gradients'\]\['b'\]"),
    (
        "inputs unchanged",
        lambda: with_state(lambda p: {"count": jnp.zeros([])}, count_in_place),
        r"given to update as JAX arrays .* at \['state'\]\['count'\] there is 1.0 instead of 0.0",
    ),
    ("eval_shape of init", lambda: with_state(lambda p: float(p["w"].sum()), same), "raised ConcretizationTypeError"),
    ("jit equals un-jitted", lambda: stateless(unless_traced), r"the updates of step 1 under jit .* at \['b'\]"),
    ("jit equals un-jitted", lambda: stateless(through_numpy), "it raised TracerArrayConversionError"),
    ("state types", lambda: with_state(lambda p: (), grow), r"the state after update 1 .*: \[0\] is new"),
    (
        "state types",
        lambda: with_state(lambda p: jax.tree.map(jnp.zeros_like, p), lambda g, s, p: average(g, s)),
        r"bfloat16 parameters and float32 gradients, .* at \['b'\] there is float32\[3\] instead of bfloat16\[3\]",
    ),
    (
        "state types",
        lambda: with_state(lambda p: 0.0, lambda g, s, p: (g, s + jnp.float32(1))),
        r"at the root there is float32\[\] instead of float32\[\] \(weak type\)",
    ),
    (
        "weak types",
        lambda: with_state(lambda p: jax.tree.map(jnp.zeros_like, p), own_dtype),
        r"at \['b'\] there is float32\[3\] instead of float32\[3\] \(weak type\)",
    ),
    (
        "updates fit mixed dtypes",
        lambda: stateless(lambda g, params: jax.tree.map(lambda x: x if x.dtype == jnp.float32 else jnp.int8(x), g)),
        "int8, which is not floating",
    ),
    ("traced once", lambda: stateless(change_settings), "3 steps with the same types were traced 2 times"),
    ("donation safe", lambda: with_state(lambda p: p, same), r"after init, the state at \['b'\] is the memory of the"),
    ("donation safe", lambda: with_state(shared_zero, same), r"the state at \[1\] is the memory of the state at \[0\]"),
    ("donation safe", lambda: with_state(zeros32, remember), "after update, the state at"),
    ("None leaves", lambda: with_state(zeros32, wide_average), "it raised AttributeError: 'NoneType'"),
    (
        "None leaves",
        lambda: stateless(fill_holes),
        "with a parameter None, the updates must have the structure of the gradients",
    ),
    ("edge shapes", lambda: stateless(mean_of_all), r"must be finite: at \['scalar'\] there is \[nan\]"),
    ("edge shapes", lambda: stateless(first_row), "it raised IndexError"),
    ("round trips", lambda: Forgetful(3.0), "a step of the transformation flattened and unflattened"),
    ("round trips", local_state, "it raised .*(pickle|local object)"),
    ("params argument", lambda: Pair(lambda p: (), lambda g, s, parameters=None: (g, s)), "unexpected keyword"),
    ("params argument", lambda: stateless(needs_params), "update without params must work or name them"),
    (
        "unknown arguments",
        lambda: gradtx.GradientTransformationExtraArgs(lambda p: (), lambda g, s, params=None: (g, s)),
        "unexpected keyword argument 'an_argument_nobody_knows'",
    ),
    ("runs under vmap", lambda: stateless(unbatched), "it raised NotImplementedError"),
    ("resumes exactly", by_identity, "of a run that was resumed must equal those of one that was not stopped"),
    (
        "small gradients",
        lambda: stateless(sign_by_division),
        "with gradients of 0 of their size, the updates of step 1",
    ),
    ("derivatives", lambda: stateless(absolute_by_root), "at gradients of 0, the derivatives by the gradients"),
    ("kept in 8 bits", uneven, "kept in 8 bits, the updates of step 1 must be finite"),
]


@pytest.fixture(autouse=True)
def settings_restored():
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.slow
@pytest.mark.parametrize(("clause", "make", "found"), BROKEN, ids=[f"{i} {c}" for i, (c, *_) in enumerate(BROKEN)])
def test_the_clause_is_named(clause: str, make: Callable, found: str):
    with pytest.raises(AssertionError, match=f"(?s)^check_contract: .* breaks '{clause}': .*{found}"):
        check_contract(make(), PARAMS)


def test_scan_fails_on_its_own():
    # Through check_contract, the clause on state types finds everything that scan would not carry.
    tx = with_state(lambda p: jnp.zeros([]), lambda g, s, p: (g, s.astype(jnp.bfloat16)))
    with pytest.raises(TypeError, match="carry"):
        CLAUSES["runs in scan"](make_case(tx, PARAMS, None, 3, {}))


def test_guard_fails_on_its_own():
    # As before, determinism finds this first.
    with pytest.raises(Broken, match="the parameters after a run with a NaN, guarded, must equal those without"):
        CLAUSES["guarded"](make_case(noise(), PARAMS, None, 3, {}))


def test_sharding_fails_on_its_own():
    # A mesh is part of types, so that the clause on tracing finds this first.
    with pytest.raises(ValueError, match="incompatible devices"):
        CLAUSES["sharded"](make_case(stateless(on_one_device), PARAMS, None, 2, {}))


def test_every_clause_has_a_broken_example():
    assert set(CLAUSES) == {clause for clause, *_ in BROKEN} | {"runs in scan", "guarded", "sharded"}


def test_the_message_is_one_sentence():
    class Broken(Pair):
        def __repr__(self):
            return "Broken()"

    with pytest.raises(AssertionError) as error:
        check_contract(Broken(lambda p: p, lambda g, s, params=None: (g, s)), PARAMS)
    assert str(error.value) == (
        "check_contract: Broken() breaks 'donation safe': after init, the state at ['b'] is the memory of the "
        "parameter at ['b']"
    )


def test_optax_state_follows_the_gradients_dtype(standard_promotion: None):
    """The fault that the clause is about. The equal dtypes before it pass."""
    with pytest.raises(AssertionError, match="'state types': with bfloat16 parameters and float32 gradients"):
        check_contract(optax.adam(1e-3), PARAMS)


def test_optax_keeps_state_types_with_equal_dtypes(standard_promotion: None):
    case = make_case(optax.adam(1e-3), PARAMS, None, 3, {})
    CLAUSES["jit equals un-jitted"](case)
    keeps_state_types("with equal dtypes", case.cast(jnp.float32, jnp.float32))
    CLAUSES["runs in scan"](case)


def test_arguments_of_the_check_itself():
    with pytest.raises(ValueError, match="steps must be at least 2"):
        check_contract(Toys.stage, PARAMS, steps=1)
    with pytest.raises(TypeError, match="got the factory toy_average: call it"):
        check_contract(toy_average, PARAMS)


def test_clauses_may_be_allowed_to_be_broken():
    tx = stateless(absolute_by_root)
    check_contract(tx, PARAMS, allow=["derivatives"])
    with pytest.raises(ValueError, match="allow must name clauses, got 'derivative'; there are updates fit, "):
        check_contract(tx, PARAMS, allow=["derivative"])


def in_numpy(gradients: list, params: Any, b: float = 0.9) -> Any:
    """`toy_descent(0.1)`."""
    mu = {n: np.zeros_like(p) for n, p in params.items()}
    for g in gradients:
        mu = {n: b * mu[n] + (1 - b) * g[n] for n in mu}
        params = {n: p - 0.1 * mu[n] for n, p in params.items()}
    return params


def test_a_formula():
    check_contract(toy_descent(0.1), PARAMS, formula=in_numpy)
    with pytest.raises(AssertionError, match=r"breaks 'formula': after 20 steps in float64, .* at \['b'\] are .* away"):
        check_contract(toy_descent(0.1), PARAMS, formula=lambda gradients, params: in_numpy(gradients, params, 0.9001))
    with pytest.raises(AssertionError, match=r"breaks 'formula': the parameters of the formula .* \['b'\] is missing"):
        check_contract(toy_descent(0.1), PARAMS, formula=lambda gradients, params: {"w": params["w"]})


def test_example_arguments():
    assert example_arguments(toy_descent) == {"learning_rate": 0.01}
    assert example_arguments(toy_average) == {}
    assert example_arguments(toy_sizes) == {"size": 2, "flag": False, "dtype": jnp.dtype("float32")}
    assert toy_sizes(**example_arguments(toy_sizes.factory)).arguments["size"] == 2
    with pytest.raises(TypeError, match="stateless needs f, for which its annotation .* gives no example"):
        example_arguments(gradtx.stateless)
    with pytest.raises(TypeError, match="is not a factory of gradtx"):
        example_arguments(max)
