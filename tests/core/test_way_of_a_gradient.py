# SPDX-License-Identifier: Apache-2.0
"""How far a gradient and a call have to go: calls of functions are counted, which is the same on every machine."""

import collections
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.core._kernels import Rule, RuleSource, forget

PACKAGE = str(pathlib.Path(gradtx.__file__).parent)
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}

counted = pytest.mark.skipif(sys.version_info < (3, 12), reason="each comprehension is a call of its own there")


def calls(function: Callable, folder: str = "") -> collections.Counter:
    """How often each Python function is called that is defined in a file under this folder."""
    found: collections.Counter = collections.Counter()

    def on_event(frame, event, arg):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(folder):
            found[f"{code.co_filename.removeprefix(PACKAGE)} {code.co_qualname}"] += 1

    sys.setprofile(on_event)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


@counted
def test_the_first_update_outside_jit():
    tx = gradtx.adamw(1e-3)
    state = tx.init(PARAMS)
    forget()
    found = calls(lambda: tx.update(PARAMS, state, PARAMS), PACKAGE)
    assert found["/core/_lift.py update_tree"] == 1, "three stages at once"
    assert found.total() <= 250, found.most_common()


@counted
def test_every_further_update_outside_jit():
    tx = gradtx.adamw(1e-3)
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    found = calls(lambda: tx.update(PARAMS, state, PARAMS), PACKAGE)
    assert found.total() <= 110, found.most_common()


@counted
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lion", "lamb"])
def test_making_a_recipe(name: str):
    """At most 10 times Optax's calls. When it was 8 times as many, it took 12 times as long; at 67 times, 300."""
    ours, theirs = getattr(gradtx, name), getattr(optax, name)
    _ = ours(1e-3), theirs(1e-3)
    found, wanted = calls(lambda: ours(1e-3)), calls(lambda: theirs(1e-3))
    assert found.total() <= 10 * wanted.total(), found.most_common()


class Counted(NamedTuple):
    count: jax.Array


def counting_body() -> tuple[Callable, list]:
    ran = []

    @gradtx.transformation
    def scaled(factor: gradtx.typing.Real, mode: str = "plain"):
        ran.append(factor)
        return gradtx.per_parameter(None, lambda g, slots, p, t: (factor * g, slots), Counted)

    return scaled, ran


def test_the_body_of_a_factory_runs_once_where_nothing_moves():
    scaled, ran = counting_body()
    tx = scaled(2.0)
    updates, state = tx.update(PARAMS, tx.init(PARAMS))
    jax.jit(tx.update)(updates, state)
    assert ran == [2.0]
    np.testing.assert_array_equal(updates["b"], 2 * np.ones(3))


@pytest.mark.parametrize("factor", [np.float32(2.0), lambda count: 2.0 + jnp.float32(count)], ids=["array", "schedule"])
def test_the_body_of_a_factory_runs_again_with_the_numbers_of_the_step(factor):
    scaled, ran = counting_body()
    tx = scaled(factor)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    assert ran[0] is factor and len(ran) > 1 and all(isinstance(x, jax.Array) for x in ran[1:])
    np.testing.assert_array_equal(updates["b"], 2 * np.ones(3))


def test_what_a_body_makes_in_one_jit_is_not_used_in_another():
    @gradtx.transformation
    def tabled(factor: gradtx.typing.Real = 1.0):
        table = jnp.arange(3.0)  # a tracer where the call is in somebody's jit
        return gradtx.per_parameter(None, lambda g, slots, p, t: (factor * table + g, slots))

    def step(g):
        tx = tabled()
        return tx.update(g, tx.init(g))[0]

    forget()
    for run in (jax.jit(step), jax.jit(lambda g: step(g)), step):
        np.testing.assert_array_equal(run(jnp.ones(3)), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(jax.vmap(step)(jnp.ones((2, 3))), 2 * [[1.0, 2.0, 3.0]])


def test_a_rule_by_itself_is_a_transformation():
    rule = gradtx.per_parameter(jnp.zeros_like, lambda g, m, p, t: (g + m, m + g), gradtx.states.TraceState)
    assert isinstance(rule.rule, Rule) and rule.rule.slots == ("trace",) and rule.factory is None
    init, update = rule
    assert rule.init is init and rule.update is update and rule == rule and hash(rule) == hash(rule)
    updates, state = update(PARAMS, init(PARAMS))
    updates, _ = rule.update(updates, state)
    np.testing.assert_array_equal(updates["b"], 2 * np.ones(3))
    tx = gradtx.chain(rule, gradtx.scale(-1.0))
    np.testing.assert_array_equal(tx.update(PARAMS, tx.init(PARAMS))[0]["b"], -np.ones(3))
    assert jax.tree.leaves(rule) == [] and jax.tree.map(lambda x: x, rule) == rule


def test_the_fields_of_a_state_are_read_off_once():
    asked = []

    class Distance(NamedTuple):
        count: jax.Array
        distance: jax.Array
        sum: gradtx.typing.Updates

    def memory():
        asked.append(1)
        return {"distance": 1.0}

    rule = gradtx.per_parameter(jnp.zeros_like, lambda g, s, p, t: (g, s), Distance, memory=memory).rule
    assert isinstance(rule, Rule) and rule.counts
    assert [rule.slots for _ in range(3)] == 3 * [("sum",)]
    assert len(asked) == 1


def test_sources_without_a_key_are_equal_to_themselves_only():
    def source(key):
        return RuleSource(lambda values: None, lambda: key)  # type: ignore[return-value]  # nothing is run

    without, another, keyed = source(None), source(None), source(1)
    assert without == without and hash(without) == hash(without)
    assert without != another and without != keyed and len({without, another, keyed}) == 3
    assert keyed == source(1) != source(2) and hash(keyed) == hash(source(1))
    assert without.kernels is not another.kernels and keyed.kernels is source(1).kernels
