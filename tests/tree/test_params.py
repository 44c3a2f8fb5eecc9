# SPDX-License-Identifier: Apache-2.0
"""`map_params` finds what belongs to parameters in the state of every transformation."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx as gt
from gradtx import tree

PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
SPECS = {"w": "of w", "b": "of b"}
NAMES = {"w": True, "b": False}


def matrices(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def named(tx, state=None, **kwargs):
    state = tx.init(PARAMS) if state is None else state
    return tree.map_params(tx, lambda x, spec: spec, state, SPECS, transform_non_params=lambda x: "-", **kwargs)


def test_moments_and_counts():
    state = named(gt.chain(gt.adam(1e-3), gt.trace(0.9)))
    assert state[0][0] == ("-", SPECS, SPECS) and state[1].trace == SPECS
    tx = gt.adam(1e-3)
    kept = tree.map_params(tx.init, lambda x: 0, tx.init(PARAMS))
    assert kept[0].mu == {"w": 0, "b": 0} and kept[0].count == 0 and kept[0].count.dtype == jnp.int32


WRAPPED = {
    "MultiSteps": (gt.MultiSteps(gt.adam(0.1), 2), lambda s: [s.acc_grads, s.inner_opt_state[0].mu]),
    "inject_hyperparams": (gt.inject_hyperparams(gt.adam)(0.1), lambda s: [s.inner_state[0].nu]),
    "lookahead": (gt.lookahead(gt.sgd(0.1, momentum=0.9), 2, 0.5), lambda s: [s.slow, s.fast_state[0].trace]),
    "schedule": (gt.adam(lambda t: 0.1), lambda s: [s[0].mu]),
    "apply_if_finite": (gt.apply_if_finite(gt.adam(0.1), 3), lambda s: [s.inner_state[0].mu]),
    "guard": (gt.guard(gt.adam(0.1)), lambda s: [tree.get(s, "mu")]),
    "named_chain": (gt.named_chain(("a", gt.adam(0.1)), ("b", gt.sgd(0.1))), lambda s: [s["a"][0].mu]),
}


@pytest.mark.parametrize(("tx", "trees"), WRAPPED.values(), ids=WRAPPED)
def test_wrappers(tx, trees):
    assert trees(named(tx)) == [SPECS] * len(trees(named(tx)))


@pytest.mark.parametrize("mask", [NAMES, matrices, lambda p: {"w": True, "b": False}], ids=["tree", "shapes", "names"])
def test_masks(mask):
    state = named(gt.masked(gt.adam(0.1), mask))
    assert state.inner_state[0].mu == {"w": "of w", "b": gt.states.MaskedNode()}
    of_leaves = named(gt.masked(gt.adam(0.1), mask), is_leaf=lambda x: isinstance(x, gt.states.MaskedNode))
    assert of_leaves.inner_state[0].mu == SPECS


@pytest.mark.parametrize("labels", [{"w": "x", "b": "y"}, lambda p: jax.tree.map(lambda x: "xy"[x.ndim == 1], p)])
def test_groups(labels):
    state = named(gt.partition({"x": gt.adam(0.1), "y": gt.sgd(0.1, momentum=0.9)}, labels))
    assert state.inner_states["x"].inner_state[0].mu == {"w": "of w", "b": gt.states.MaskedNode()}
    assert state.inner_states["y"].inner_state[0].trace == {"w": gt.states.MaskedNode(), "b": "of b"}


def test_several_leaves_a_parameter():
    """SM3 has a cover for each axis, so its trees are deeper than the parameters."""
    state = named(gt.sm3(0.1))[0]
    assert state.mu == {"w": ["of w", "of w"], "b": ["of b"]} and state.nu == SPECS


def test_factored_moments_are_not_like_their_parameters():
    tx = gt.adafactor(1e-3, min_dim_size_to_factor=2)
    shapes = jax.eval_shape(lambda: PARAMS)
    state = named(tx, params=shapes)[0]
    assert state.v_row == state.v_col == {"w": "-", "b": "-"}
    assert state.v == {"w": "-", "b": "of b"}
    everything = named(tx)[0]
    assert everything.v_row == everything.v_col == everything.v == SPECS
    assert named(gt.sm3(0.1), params=shapes)[0].mu == {"w": ["-", "-"], "b": ["of b"]}
    alone = tree.map_params(tx, lambda x: "P", tx.init(PARAMS), transform_non_params=lambda x: "-", params=shapes)
    assert alone[0].v == {"w": "-", "b": "P"}


def test_a_low_rank_state():
    tx = gt.low_rank(gt.adam(0.1), rank=1)
    state = named(tx, params=PARAMS)
    assert state.count == "-" and state.projector == {"w": "-", "b": "-"}
    assert state.base_optimizer_state[0].mu == {"w": "-", "b": "of b"}


def test_what_the_leaves_of_rest_may_be():
    tx = gt.adam(0.1)
    state = tx.init(PARAMS)
    for specs in ({"w": ("data", None), "b": ()}, {"w": None, "b": None}):
        found = tree.map_params(tx, lambda x, spec: [spec], state, specs)
        assert found[0].mu == {"w": [specs["w"]], "b": [specs["b"]]}
    total = tree.map_params(tx, lambda m, p, q: m + p + q, state, PARAMS, PARAMS)
    assert jnp.all(total[0].mu["w"] == 2)


def test_parameters_that_are_none():
    tx, params = gt.adam(0.1), {"w": None, "b": jnp.ones(1)}
    found = tree.map_params(tx, lambda x, spec: spec, tx.init(params), SPECS)
    assert found[0].mu == {"w": None, "b": "of b"}


def test_trees_that_do_not_match():
    tx = gt.adam(0.1)
    with pytest.raises(ValueError, match="map_params: the trees do not match"):
        tree.map_params(tx, lambda x, s: s, tx.init(PARAMS), {"w": 0})
    with pytest.raises(ValueError, match="map_params: the trees do not match"):
        tree.map_params(gt.sgd(0.1, momentum=0.9), lambda x: x, gt.sm3(0.1).init(PARAMS))
    with pytest.raises(TypeError, match="map_params: initable must be a transformation or an init function, got 3"):
        tree.map_params(3, lambda x: x, ())


@pytest.mark.usefixtures("standard_promotion")
def test_as_optax():
    for ours, theirs in [
        (gt.adam(0.1), optax.adam(0.1)),
        (gt.masked(gt.adam(0.1), matrices), optax.masked(optax.adam(0.1), matrices)),
        (gt.adafactor(0.1, min_dim_size_to_factor=2), optax.adafactor(0.1, min_dim_size_to_factor=2)),
        (gt.MultiSteps(gt.adam(0.1), 2), optax.MultiSteps(optax.adam(0.1), 2)),
    ]:
        found, expected = (
            [x for x in jax.tree.leaves(lib.map_params(tx, lambda x: "P", tx.init(PARAMS))) if isinstance(x, str)]
            for lib, tx in ((tree, ours), (optax.tree, theirs))
        )
        assert found == expected and found
