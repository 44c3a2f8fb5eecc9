# SPDX-License-Identifier: Apache-2.0
"""`explain_path` says why a parameter gets what it gets."""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx import Role, explain_path, times
from support.transformers import nnx_stacked

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
GUESS = gradtx.infer_roles
ROLES = [("layers/**", partial(GUESS, stack=0)), ("**", partial(GUESS, stack=()))]
RULES = [
    ("layers/**", {"learning_rate": gradtx.layerwise_decay(0.5), "nesterov": False}),
    ("lm_head/**", gradtx.sgd(0.1)),
    ("embed/**", "frozen"),
]
BASE = gradtx.chain(
    gradtx.clip_by_global_norm(1.0), gradtx.muon(gradtx.schedules.cosine(100) * 0.02, weight_decay=0.01)
)


def explained(path: str) -> str:
    params = nnx_stacked().params
    return str(explain_path(gradtx.with_roles(ROLES, gradtx.groups(RULES, BASE)), params, path))


@pytest.mark.slow
def test_a_stack_of_matrices():
    assert (
        explained("layers/up/kernel")
        == """\
layers/up/kernel: (3, 8, 16) float32
role: Role('hidden', stack=(0,), in_axes=(-2,), out_axes=(-1,)), by rule 0 ('layers/**'), guessed by
    partial(infer_roles, stack=0)
stack: rules run on parameters of shape (8, 16)
rule: muon, learning rate x0.125..0.5, weight decay x1
choices:
  groups: rule 0 ('layers/**'): learning_rate 0.02 at step 0 -> 0.0025, 0.005, 0.01 at step 0, nesterov True -> False
  partition: its label is 'muon', out of 'adam', 'muon', by matrices_and_rest.<locals>.labels
stages:
  clip_by_global_norm: max_norm 1 (sums over 15 of 20 parameters)
  scale_by_muon: beta 0.95, eps 1e-08
  scale_by_matrix_shape
  add_decayed_weights: weight_decay 0.01
  scale_by_lr: learning_rate 0.0025, 0.005, 0.01 at step 0
state:
  inner_states.rule 0.inner_state.1.inner_states.muon.inner_state.0.mu  (3, 8, 16) float32, 1,536 bytes"""
    )


def test_another_rule():
    assert (
        explained("lm_head/kernel")
        == """\
lm_head/kernel: (8, 11) float32
role: Role('head', in_axes=(-2,), out_axes=(-1,)), by rule 1 ('**'), guessed by partial(infer_roles, stack=())
rule: sgd, learning rate x1, no weight decay
choices:
  groups: rule 1 ('lm_head/**'): runs sgd(0.1)
stages:
  identity
  scale_by_lr: learning_rate 0.1
state: none"""
    )


@pytest.mark.slow
def test_frozen():
    assert (
        explained("embed/embedding")
        == """\
embed/embedding: (11, 8) float32
role: Role('embedding', in_axes=(-2,), out_axes=(-1,)), by rule 1 ('**'), guessed by partial(infer_roles, stack=())
rule: frozen
choices:
  groups: rule 2 ('embed/**'): frozen
stages: none, its update is None
state: none"""
    )


def test_masks():
    tx = gradtx.adamw(1e-3, mask=gradtx.where("w"))
    assert (
        str(explain_path(tx, PARAMS, "b"))
        == """\
b: (3,) float32
rule: adamw, learning rate x1, no weight decay
choices:
  masked: add_decayed_weights does not see it, by where('w')
stages:
  scale_by_adam: b1 0.9, b2 0.999, eps 1e-08, eps_root 0
  scale_by_lr: learning_rate 0.001
state:
  0.mu  (3,) float32, 12 bytes
  0.nu  (3,) float32, 12 bytes"""
    )
    assert explain_path(tx, PARAMS, "w").choices == ("masked: add_decayed_weights sees it, by where('w')",)
    tx = gradtx.masked(gradtx.adam(0.1), {"w": True, "b": False})
    assert (
        str(explain_path(tx, PARAMS, "b"))
        == """\
b: (3,) float32
rule: none
choices:
  masked: adam does not see it, by a tree
stages: none, its gradient passes as it is
state: none"""
    )


def test_wrappers_are_around_what_they_run():
    tx = gradtx.lookahead(gradtx.sgd(0.1, momentum=0.9), 5, 0.5)
    assert [(s.name, s.depth, s.numbers) for s in explain_path(tx, PARAMS, "w").stages] == [
        ("lookahead", 0, {"slow_step_size": "0.5"}),
        ("trace", 1, {"decay": "0.9"}),
        ("scale_by_lr", 1, {"learning_rate": "0.1"}),
    ]


def test_numbers_in_the_state():
    stages = explain_path(gradtx.inject_hyperparams(gradtx.sgd)(0.1), PARAMS, "w").stages
    assert [s.name for s in stages] == ["inject_hyperparams", "identity", "scale_by_lr"]
    assert stages[-1].numbers == {"learning_rate": "from the state"}


@pytest.mark.parametrize(
    "rules, source",
    [
        ([("b", Role("bias")), ("**", Role("hidden"))], "by rule 1 ('**')"),
        (GUESS, "guessed by infer_roles"),
        ({"w": Role("hidden"), "b": Role("bias")}, "from the tree of roles"),
    ],
)
def test_where_a_role_is_from(rules: Any, source: str):
    found = explain_path(gradtx.with_roles(rules, gradtx.sgd(0.1)), PARAMS, "w")
    assert found.role_source == source
    assert f", {source}\n" in str(found)


@pytest.mark.parametrize(
    "said, change",
    [
        ({"learning_rate": times(0.1)}, "learning_rate 0.01 -> 0.001"),
        ({"learning_rate": 0.02, "weight_decay": 0.0}, "learning_rate 0.01 -> 0.02, weight_decay 0.0001 -> 0"),
        ({"learning_rate": gradtx.schedules.linear(10)}, "learning_rate 0.01 -> 1 at step 0"),
        ({"nesterov": True}, "nesterov False -> True"),
        (gradtx.lion(0.1), "runs lion(0.1)"),
    ],
)
def test_what_groups_change(said: Any, change: str):
    tx = gradtx.groups([("w", said)], gradtx.adamw(0.01))
    assert explain_path(tx, PARAMS, "w").choices == (f"groups: rule 0 ('w'): {change}",)
    assert explain_path(tx, PARAMS, "b").choices == ("groups: no rule chooses it",)


def test_several_rules_of_groups():
    rules = [("w", {"weight_decay": 0.0}), ("**", {"learning_rate": times(2)})]
    found = explain_path(gradtx.groups(rules, gradtx.adamw(0.01)), PARAMS, "w")
    assert found.choices == (
        "groups: rule 0 ('w'): weight_decay 0.0001 -> 0",
        "groups: rule 1 ('**'): learning_rate 0.01 -> 0.02",
    )


def test_many_layers_are_shown_by_their_ends():
    rules = [("**", {"learning_rate": gradtx.layerwise_decay(0.5)})]
    tx = gradtx.with_roles([("**", Role(stack=(0,)))], gradtx.groups(rules, gradtx.sgd(1.0)))
    stages = explain_path(tx, {"w": jnp.ones((6, 2))}, "w").stages
    assert stages[-1].numbers == {"learning_rate": "0.015625..0.5"}


def test_one_array_as_parameters():
    for path in ("", "(root)"):
        found = explain_path(gradtx.adam(0.1), jnp.ones(2), path)
        assert (found.parameter.path, len(found.slots), len(found.stages)) == ("(root)", 2, 2)


def test_a_transformation_of_others_is_one_stage():
    found = explain_path(optax.adam(0.1), PARAMS, "w")
    assert [s.name for s in found.stages] == ["optax.chain"]
    assert [(s.field, s.bytes) for s in found.slots] == [("[0].mu", 24), ("[0].nu", 24)]


def test_the_dictionary_is_plain():
    tx = gradtx.with_roles([("**", Role("hidden", stack=(0,)))], gradtx.clip_by_global_norm(1.0))
    found = explain_path(tx, {"w": jnp.ones((2, 3))}, "w").to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["logical_shape"] == [3]
    stage = {"name": "clip_by_global_norm", "numbers": {"max_norm": "1"}, "depth": 0, "sums_over": [1, 1]}
    assert found["stages"] == [stage]


def test_shapes_are_enough_and_shardings_are_shown():
    mesh = jax.make_mesh((1,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    shapes = {"w": jax.ShapeDtypeStruct((4,), jnp.bfloat16, sharding=sharding)}
    assert str(explain_path(gradtx.sgd(0.1), shapes, "w")).splitlines()[0] == "w: (4,) bfloat16, P('data')"


def test_a_path_that_is_not_there():
    params = {"layers": [{"kernel": jnp.ones(2), "bias": jnp.ones(2)}]}
    with pytest.raises(
        ValueError, match="explain_path: there is no parameter at 'layers/kernel'; the closest are layers/0/k"
    ):
        explain_path(gradtx.sgd(0.1), params, "layers/kernel")
    with pytest.raises(TypeError, match="explain_path: tx must be a transformation"):
        explain_path(gradtx.sgd, params, "layers/0/kernel")
