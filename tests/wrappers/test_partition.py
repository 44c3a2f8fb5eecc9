# SPDX-License-Identifier: Apache-2.0
import enum
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import partition
from gradtx.states import MaskedNode

PARAMS = {"w": jnp.full((2, 2), 0.5), "b": {"x": jnp.ones(2), "y": jnp.zeros(2)}}
GRADS = jax.tree.map(lambda p: p + 0.25, PARAMS)


def by_rank(tree):
    return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "rest", tree)


TWO = {"matrix": gradtx.adamw(0.1), "rest": gradtx.sgd(0.5)}


def run(tx, grads=GRADS, params=PARAMS, steps=3, **extra):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(grads, state, params, **extra)
    return updates, state


@pytest.mark.parametrize("labels", ["all", {"w": "all", "b": "all"}, lambda tree: "all"])
@pytest.mark.parametrize("inner", [gradtx.adamw(0.1), gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.sgd(1.0))])
def test_one_label_is_the_transformation_bit_for_bit(inner, labels):
    updates, state = run(partition({"all": inner}, labels))
    plain, plain_state = run(inner)
    chex.assert_trees_all_equal(updates, plain)
    chex.assert_trees_all_equal(state.inner_states["all"].inner_state, plain_state)


@pytest.mark.parametrize(
    "labels", [by_rank, {"w": "matrix", "b": {"x": "rest", "y": "rest"}}, {"w": "matrix", "b": "rest"}]
)
def test_each_group_is_its_transformation_alone(labels):
    updates, state = run(partition(TWO, labels))
    chex.assert_trees_all_equal(updates["w"], run(TWO["matrix"], GRADS["w"], PARAMS["w"])[0])
    chex.assert_trees_all_equal(updates["b"], run(TWO["rest"], GRADS["b"], PARAMS["b"])[0])
    assert state.inner_states["matrix"].inner_state[0].mu["b"] == {"x": MaskedNode(), "y": MaskedNode()}


def test_norms_are_those_of_the_group():
    tx = partition({"matrix": gradtx.clip_by_global_norm(1.0), "rest": gradtx.identity()}, by_rank)
    np.testing.assert_allclose(gradtx.global_norm(run(tx)[0]["w"]), 1.0, rtol=1e-6)


class Group(enum.Enum):
    FAST = 1
    SLOW = 2


@pytest.mark.parametrize(
    "names", [(1, "1"), (Group.FAST, Group.SLOW), (("a", 0), ("a", 1)), (("a", 0), "b"), (None, 2)]
)
def test_labels_may_be_anything_that_can_be_a_key(names):
    fast, slow = names
    tx = partition({fast: gradtx.sgd(1.0), slow: gradtx.sgd(0.5)}, {"w": fast, "b": {"x": slow, "y": fast}})
    state = tx.init(PARAMS)
    updates, new = jax.jit(tx.update)(GRADS, state, PARAMS)
    np.testing.assert_array_equal(updates["w"], -GRADS["w"])
    np.testing.assert_array_equal(updates["b"]["x"], -0.5 * GRADS["b"]["x"])
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert pickle.loads(pickle.dumps(tx)) == tx


def test_a_tuple_in_the_tree_of_labels_is_a_part_of_the_tree():
    tx = partition({"a": gradtx.sgd(1.0), "b": gradtx.sgd(0.5)}, ("a", ("b", "a")))
    one = jnp.ones(1)
    chex.assert_trees_all_equal(run(tx, (one, (one, one)), (one, (one, one)))[0], (-one, (-0.5 * one, -one)))


def test_none_is_no_value_for_any_group():
    updates, _ = run(partition(TWO, by_rank), GRADS | {"w": None})
    assert updates["w"] is None
    updates, _ = run(partition(TWO, by_rank), GRADS | {"b": None})
    assert updates["b"] is None
    without = {"w": PARAMS["w"], "b": None}
    chex.assert_trees_all_equal(run(partition(TWO, {"w": "matrix", "b": "rest"}), without, without)[0]["b"], None)


def test_a_group_may_be_empty_if_labels_are_a_function():
    updates, _ = run(partition(TWO, by_rank), GRADS["b"], PARAMS["b"])
    chex.assert_trees_all_equal(updates, run(TWO["rest"], GRADS["b"], PARAMS["b"])[0])


def test_nested_in_each_other_and_in_masks():
    inner = partition({"x": gradtx.sgd(1.0), "y": gradtx.sgd(0.5)}, {"w": "x", "b": {"x": "x", "y": "y"}})
    whole, _ = run(inner)
    updates, _ = run(gradtx.masked(inner, {"w": True, "b": False}))
    chex.assert_trees_all_equal(updates, {"w": whole["w"], "b": GRADS["b"]})
    updates, _ = run(partition({"matrix": gradtx.identity(), "rest": inner}, by_rank))
    chex.assert_trees_all_equal(updates, {"w": GRADS["w"], "b": whole["b"]})


def test_extra_arguments_reach_those_that_take_them():
    seen = {}

    def spy(updates, state, params=None, *, value, other):
        seen.update(value=value, other=other)
        return updates, state

    inner = gradtx.GradientTransformation(lambda p: (), spy)
    for masked in (False, True):
        tx = partition({"matrix": inner, "rest": gradtx.sgd(1.0)}, by_rank, mask_compatible_extra_args=masked)
        run(tx, steps=1, value=3.0, other=GRADS)
        assert seen["value"] == 3.0
        assert (seen["other"]["b"]["x"] == MaskedNode()) is masked


def test_errors_name_the_path():
    with pytest.raises(ValueError, match=r"the label at \['b'\]\['y'\] is 'rset', .*there are 'matrix', 'rest'"):
        partition(TWO, {"w": "matrix", "b": {"x": "rest", "y": "rset"}})
    with pytest.raises(ValueError, match=r"the label at \['w'\] is 2, for which there is no transformation"):
        partition(TWO, lambda tree: jax.tree.map(jnp.ndim, tree)).init({"w": jnp.ones((2, 2))})
    with pytest.raises(
        ValueError, match=r"nothing for \['b'\]\['y'\] and an entry at \['b'\]\['z'\], where there is no"
    ):
        partition(TWO, {"w": "matrix", "b": {"x": "rest", "z": "rest"}}).init(PARAMS)
    with pytest.raises(TypeError, match="partition: transforms must be a dictionary"):
        partition(gradtx.sgd(0.1), "all")  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(
        TypeError, match=r"partition: transforms\['all'\] must be a transformation, got the factory sgd"
    ):
        partition({"all": gradtx.sgd}, "all")
    tx = partition(TWO, by_rank)
    with pytest.raises(TypeError, match="partition: state must be the PartitionState"):
        tx.update(GRADS, PARAMS, tx.init(PARAMS))
    with pytest.raises(TypeError, match=r"the labels of transforms, \['matrix', 'rest'\], got \['other'\]"):
        tx.update(GRADS, gradtx.states.PartitionState({"other": gradtx.states.MaskedState(())}), PARAMS)
    with pytest.raises(ValueError, match=r"partition: the trees do not match: .*\['b'\]\['y'\]"):
        tx.update({"w": GRADS["w"], "b": {"x": GRADS["b"]["x"]}}, tx.init(PARAMS), PARAMS)


def test_it_is_a_value_whose_leaves_are_the_rates():
    tx = partition({"matrix": gradtx.sgd(1.0), "rest": gradtx.sgd(0.5)}, by_rank)
    rates = jnp.array([1.0, 2.0])
    updates = jax.vmap(lambda r: run(jax.tree.map(lambda x: r * x, tx), steps=1)[0])(rates)
    np.testing.assert_allclose(updates["w"][1], -2 * GRADS["w"])
    np.testing.assert_allclose(updates["b"]["x"][1], -GRADS["b"]["x"])
    assert jax.tree.leaves(tx) == [1.0, 0.5]


def test_steps_schedules_and_metrics_are_found_inside():
    rate = gradtx.linear_schedule(1.0, 0.0, 10)
    tx = partition({"matrix": gradtx.sgd(rate), "rest": gradtx.adam(rate)}, by_rank)
    _, state = run(tx, steps=3)
    seen = gradtx.metrics(state, tx)
    assert set(seen) == {"matrix.learning_rate", "rest.learning_rate"}
    np.testing.assert_allclose(list(seen.values()), 0.8, rtol=1e-6)
    np.testing.assert_allclose(list(gradtx.metrics(gradtx.restart(state, 6), tx).values()), 0.5, rtol=1e-6)


def test_evaluation_parameters_are_those_of_each_group():
    tx = partition({"matrix": gradtx.chain(gradtx.sgd(0.5), gradtx.params_ema(0.5)), "rest": gradtx.sgd(0.5)}, by_rank)
    _, state = run(tx)
    found = gradtx.eval_params(state, PARAMS)
    assert np.any(found["w"] != PARAMS["w"])
    chex.assert_trees_all_equal(found["b"], PARAMS["b"])
