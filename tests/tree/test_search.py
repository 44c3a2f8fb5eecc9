# SPDX-License-Identifier: Apache-2.0
"""Finding and replacing parts of states, by name, path and filter."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx import tree

PARAMS = {"w": jnp.ones(2), "b": jnp.ones(1)}
ONE = gt.chain(gt.adam(1e-3), gt.trace(0.9)).init(PARAMS)
TWO = gt.chain(gt.adam(1e-3), gt.adam(1e-3)).init(PARAMS)


class Pair(NamedTuple):
    a: Any
    b: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Box:
    inside: Any


def test_by_the_name_of_a_field():
    assert tree.get(ONE, "mu") is ONE[0][0].mu
    assert tree.get(ONE, "trace") is ONE[1].trace
    assert tree.get(TWO, "learning_rate") is None and tree.get(TWO, "learning_rate", 5) == 5


def test_by_the_name_of_a_class():
    assert tree.get(ONE, "ScaleByAdamState") is ONE[0][0]
    assert tree.get(Pair(1, 2), "Pair") == Pair(1, 2)


def test_by_path():
    assert tree.get(TWO, "1.0.count") is TWO[1][0].count
    assert tree.get(ONE, "mu.w") is ONE[0][0].mu["w"]
    nested = {"0": {"count": 1}, "1": {"0": {"count": 2}}}
    assert tree.get(nested, "0.count") == 1 and tree.get(nested, "1.0.count") == 2
    assert tree.get(TWO, "0.coun") is tree.get(TWO, "ount") is None  # whole names only
    assert tree.get({"a.b": 1}, "a.b") == 1
    assert tree.get({"layer": {"kernel": 1}, "my_kernel": 2}, "kernel") == 1


def test_by_filter():
    first = tree.get(TWO, "count", filtering=lambda path, value: path[0].idx == 0)
    assert first is TWO[0][0].count
    key = tree.NamedTupleKey("TraceState", "trace")
    assert tree.get(ONE, "w", filtering=lambda path, value: key in path) is ONE[1].trace["w"]
    assert tree.get(ONE, "mu", filtering=lambda path, value: isinstance(value, jax.Array)) is None
    assert str(key) == "TraceState.trace"


def test_several():
    with pytest.raises(KeyError, match=r"get: 'count' is at 0\.0\.count, 1\.0\.count; name one by more of its path"):
        tree.get(TWO, "count")
    many = [{"a": i} for i in range(10)]
    with pytest.raises(KeyError, match=r"0\.a, .*, 7\.a and 2 more"):
        tree.get(many, "a")


def test_containers_of_all_kinds():
    assert tree.get({"x": [Box(Pair(1, None))]}, "inside") == Pair(1, None)
    assert tree.get_all_with_path({"b": None}, "b") == [((jax.tree_util.DictKey("b"),), None)]
    assert tree.set((Box(1), Box(2)), inside=3) == (Box(3), Box(3))
    assert tree.set({"a": None}, a=1) == {"a": 1}


def test_inside_each_other():
    found = tree.get_all_with_path({"a": {"a": 1}}, "a")
    assert [value for _, value in found] == [{"a": 1}, 1]
    assert tree.set({"a": {"a": 1}}, a=2) == {"a": 2}
    assert tree.set({"a": {"b": 1}, "b": 1}, a=3, b=4) == {"a": 3, "b": 4}
    assert tree.set({"a": {"b": 1}}, a=3, b=4) == {"a": 3}


def test_set():
    new = tree.set(ONE, count=7)
    assert new[0][0].count == 7 and new[0][0].mu["w"] is ONE[0][0].mu["w"]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), ONE)
    assert not new[0][0].count.weak_type
    both = tree.set(TWO, count=3)
    assert (both[0][0].count, both[1][0].count) == (3, 3)
    first = tree.set(TWO, lambda path, value: path[0].idx == 0, count=3)
    second = tree.set(TWO, **{"1.0.count": 3})
    assert (first[0][0].count, first[1][0].count) == (3, 0)
    assert (second[0][0].count, second[1][0].count) == (0, 3)
    assert tree.set(ONE, mu=1, nu="nu")[0][0][1:] == (1, "nu")


def test_hyperparameters_keep_their_dtype():
    tx = gt.inject_hyperparams(gt.adam)(1e-3)
    state = tree.set(tx.init(PARAMS), learning_rate=0.1)
    assert state.hyperparams["learning_rate"].dtype == jnp.float32
    assert tree.get(state, "learning_rate") == np.float32(0.1)
    again = jax.jit(lambda s: tree.set(s, learning_rate=tree.get(s, "learning_rate") / 2))(state)
    np.testing.assert_allclose(tree.get(again, "learning_rate"), 0.05, rtol=1e-6)


def test_what_is_not_there():
    with pytest.raises(KeyError, match="set: there is no 'lr'; there are 0, 1, b, count, mu, nu, trace, w"):
        tree.set(ONE, lr=1)
    with pytest.raises(KeyError, match="set: there is no 'count' that passes the filter"):
        tree.set(ONE, lambda path, value: False, count=1)


@pytest.mark.usefixtures("standard_promotion")
def test_as_optax():
    """The same paths, in the same order, for the same names."""
    state = optax.chain(optax.adam(1e-3), optax.trace(0.9)).init(PARAMS)
    for key in ("count", "mu", "w", "trace", "ScaleByAdamState", "nothing"):
        ours, theirs = (lib.get_all_with_path(state, key) for lib in (tree, optax.tree))
        assert [tuple(map(str, path)) for path, _ in ours] == [tuple(map(str, path)) for path, _ in theirs]
        assert all(a is b for (_, a), (_, b) in zip(ours, theirs, strict=True))
    new, theirs = tree.set(state, mu=1, w=2), optax.tree.set(state, mu=1, w=2)
    assert jax.tree.structure(new) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
