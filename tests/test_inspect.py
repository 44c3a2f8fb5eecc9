# SPDX-License-Identifier: Apache-2.0
"""`describe` names every stage and every array of the state."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx import describe
from gradtx.results import Description

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


class PlainState(NamedTuple):
    count: jax.Array
    mu: Any


class Hidden(NamedTuple):
    """Like the node of a mask."""


class Packed(NamedTuple):
    """Like what a codec stores."""

    codes: jax.Array
    scale: jax.Array


class WrapperState(NamedTuple):
    inner_state: Any


@gradtx.transformation
def plain_average(b: gradtx.typing.Decay = 0.9, dtype: gradtx.typing.DType = None):
    return gradtx.per_parameter(lambda p: jnp.zeros(p.shape, dtype), lambda g, mu, p, t: (g, mu), PlainState)


@gradtx.transformation
def plain_rate(learning_rate: gradtx.typing.ScalarOrSchedule):
    return gradtx.per_parameter(None, lambda g, slots, p, t: (-learning_rate * g, slots))


@gradtx.transformation
def plain_descent(learning_rate: gradtx.typing.ScalarOrSchedule, b: gradtx.typing.Decay = 0.9):
    return gradtx.chain(plain_average(b), plain_rate(learning_rate))


@gradtx.transformation
def plain_alias(learning_rate: gradtx.typing.ScalarOrSchedule):
    return plain_descent(learning_rate, 0.5)


@gradtx.transformation
def plain_wrapper(inner: Any, others: Any = ()):
    return gradtx.GradientTransformationExtraArgs(lambda params: WrapperState(inner.init(params)), inner.update)


def by_hand(init: Callable) -> gradtx.GradientTransformation:
    return gradtx.GradientTransformation(init, lambda g, state, params=None: (g, state))


def rows(description: Description) -> list[tuple]:
    return [(s.field, s.parameter, s.shape, s.bytes) for s in description.slots]


def test_a_recipe_as_text():
    assert (
        str(describe(plain_descent(0.1, b=0.95), PARAMS))
        == """\
plain_descent(0.1, b=0.95)
  0: plain_average(b=0.95)
  1: plain_rate(0.1)

parameter       shape   rule           rate  decay  slots        bytes
b               (3,)    plain_descent  x1    -      mu float32      12
w               (2, 3)  plain_descent  x1    -      mu float32      24
(no parameter)                                      count int32      4

40 bytes of state for 9 parameter elements: 4.444 each"""
    )


def test_nested_chains_as_text():
    inner = gradtx.chain(plain_alias(0.1), plain_average(dtype=jnp.bfloat16))
    tx = gradtx.named_chain(("first", gradtx.identity()), ("then", inner))
    assert (
        str(describe(tx, {"layers": [jnp.ones(2), jnp.ones(())]}))
        == """\
named_chain(...)
  first: identity()
  then: chain(...)
    then.0: plain_alias(0.1)
      plain_descent(0.1, b=0.5)
        then.0.0: plain_average(b=0.5)
        then.0.1: plain_rate(0.1)
    then.1: plain_average(dtype='bfloat16')

parameter       shape  rule                         rate  decay  slots                    bytes
layers/0        (2,)   plain_alias + plain_average  x1    -      mu float32, mu bfloat16     12
layers/1        ()     plain_alias + plain_average  x1    -      mu float32, mu bfloat16      6
(no parameter)                                                   count int32                  8

26 bytes of state for 3 parameter elements: 8.667 each"""
    )


def test_a_wrapper_is_one_stage_with_what_it_wraps_below():
    tx = plain_wrapper(plain_descent(0.1), {"a": plain_rate(0.2), "b": 3})
    description = describe(gradtx.chain(tx, plain_rate(0.3)), PARAMS)
    assert (
        str(description).partition("\n\n")[0]
        == """\
chain(...)
  0: plain_wrapper(plain_descent(0.1), others={'a': plain_rate(0.2), 'b': 3})
    inner: plain_descent(0.1)
      0: plain_average()
      1: plain_rate(0.1)
    others.a: plain_rate(0.2)
  1: plain_rate(0.3)"""
    )
    assert {s.stage for s in description.slots} == {(0,)}
    assert rows(description) == [
        ("inner_state[0].count", "", (), 4),
        ("inner_state[0].mu", "b", (3,), 12),
        ("inner_state[0].mu", "w", (2, 3), 24),
    ]


def test_a_schedule_adds_a_count():
    description = describe(plain_descent(lambda count: 0.1), PARAMS)
    assert [(s.stage, s.field) for s in description.slots if s.parameter == ""] == [((0,), "count"), ((1,), "count")]


def test_others_transformations_are_one_stage():
    description = describe(gradtx.chain(optax.adam(0.1), by_hand(lambda params: ())), PARAMS)
    calls = [s.call for s in description.stages]
    assert calls[1].startswith("GradientTransformationExtraArgs(init=<function") and "0x" not in calls[1]
    assert calls[2].startswith("GradientTransformation(test_others")
    assert {s.field for s in description.slots} == {"[0].count", "[0].mu", "[0].nu"}
    assert max(map(len, str(description).splitlines())) <= 120


def test_totals_and_to_dict():
    description = describe(plain_descent(0.1), PARAMS)
    assert (description.state_bytes, description.parameter_elements) == (40, 9)
    assert description.bytes_per_element == pytest.approx(40 / 9)
    found = description.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["stages"][1] == {"path": [0], "depth": 1, "call": "plain_average()", "label": ""}
    assert found["slots"][2] == {
        "stage": [0],
        "field": "mu",
        "parameter": "w",
        "shape": [2, 3],
        "dtype": "float32",
        "bytes": 24,
        "bytes_per_element": 4.0,
        "name": "mu",
        "sharding": "",
    }
    assert (found["state_bytes"], found["parameter_elements"], found["bytes_per_element"]) == (40, 9, 40 / 9)


def test_nothing_is_allocated():
    huge = {"w": jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.bfloat16)}
    description = describe(plain_descent(0.1), huge)
    assert description.state_bytes == 4 + 4 * (1 << 40)
    assert "4,398,046,511,108 bytes of state" in str(description)


def test_shapes_and_arrays_are_described_alike():
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), PARAMS)
    assert describe(plain_descent(0.1), shapes) == describe(plain_descent(0.1), PARAMS)


def test_none_among_the_parameters():
    description = describe(plain_average(), {"w": jnp.ones(2), "none": None, "deep": {"none": None, "b": jnp.ones(3)}})
    assert rows(description) == [("count", "", (), 4), ("mu", "deep/b", (3,), 12), ("mu", "w", (2,), 8)]


def test_masked_leaves_and_branches_have_no_state():
    def init(params):
        return WrapperState(plain_average().init({"w": Hidden(), "deep": Hidden(), "b": params["b"]}))

    params = {"w": jnp.ones(2), "deep": {"v": jnp.ones(2), "u": jnp.ones(2)}, "b": jnp.ones(3)}
    assert rows(describe(by_hand(init), params)) == [
        ("inner_state.count", "", (), 4),
        ("inner_state.mu", "b", (3,), 12),
    ]


def test_several_arrays_for_one_parameter_are_fields():
    def init(params):
        packed = jax.tree.map(lambda p: Packed(jnp.zeros(p.shape, jnp.int8), jnp.zeros(1)), params)
        return PlainState(jnp.zeros([], jnp.int32), packed)

    assert rows(describe(by_hand(init), PARAMS)) == [
        ("count", "", (), 4),
        ("mu.codes", "b", (3,), 3),
        ("mu.codes", "w", (2, 3), 6),
        ("mu.scale", "b", (1,), 4),
        ("mu.scale", "w", (1,), 4),
    ]


def test_sequences_are_not_taken_for_states_by_chance():
    def init(params):
        return jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params)

    params = (jnp.ones(2), jnp.ones(3))
    assert rows(describe(by_hand(init), params)) == [
        ("[0]", "", (), 4),
        ("[1]", "0", (2,), 8),
        ("[1]", "1", (3,), 12),
    ]


@pytest.mark.parametrize("shape", [(), (2,)])
def test_one_array_as_parameters(shape: tuple):
    description = describe(plain_average(), jnp.ones(shape))
    assert [(s.field, s.parameter) for s in description.slots] == [("count", ""), ("mu", "(root)")]


def test_random_keys_are_counted():
    description = describe(by_hand(lambda params: {"key": jax.random.key(0)}), PARAMS)
    assert rows(description) == [("key", "", (), 8)]


def test_no_state_and_no_parameters():
    assert str(describe(gradtx.chain(), {})) == "chain()\n\n0 bytes of state for 0 parameter elements"
    empty = describe(plain_average(), {"w": jnp.ones((0, 3))})
    assert (empty.slots[1].bytes, empty.slots[1].bytes_per_element, empty.bytes_per_element) == (0, None, None)


@pytest.mark.slow
def test_big_trees_stay_readable():
    names = [a + b + c for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefgh"]
    params = {f"a_module_with_a_long_name/{'block' * 8}/{name}": jnp.ones(2) for name in names}
    description = describe(gradtx.chain(*[plain_wrapper(plain_alias(0.1))] * 3, gradtx.chain(plain_average())), params)
    assert len(description.slots) == 4 * 513
    text = str(description)
    lines = text.splitlines()
    assert len(lines) < 120 and max(map(len, lines)) <= 120
    assert [line.split()[-1] for line in lines if line.startswith("... and 432 more")] == [f"{432 * 4 * 8:,}"]
    assert sum("ockblock/bbh " in line for line in lines) == 1
    assert sum("ockblock/bca " in line for line in lines) == 0


def test_a_long_call_is_cut_in_the_middle():
    tx = plain_wrapper(plain_descent(0.1), {f"name_{i}": i for i in range(50)})
    first = str(describe(tx, PARAMS)).splitlines()[0]
    assert len(first) == 120
    assert first.startswith("plain_wrapper(plain_descent(0.1), others={'name_0': 0") and first.endswith("'name_9': 9})")


def test_what_is_no_transformation_is_an_error():
    with pytest.raises(TypeError, match="describe: tx must be a transformation, got the factory plain_average: call"):
        describe(plain_average, PARAMS)


def test_in_a_notebook_a_description_is_a_table():
    html = describe(gradtx.adamw(1e-3), PARAMS)._repr_html_()
    assert html.count("<tr>") == 4 and "scale_by_adam()" in html and "&lt;" not in html
    assert "<td" in html and html.count("<table>") == html.count("</table>") == 1
