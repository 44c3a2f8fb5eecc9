# SPDX-License-Identifier: Apache-2.0
"""Which transformations see which parameters is found by probes, whatever wrappers do."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import gradtx
from gradtx.describing._routes import RouteNode, route

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3), "none": None}


def seen(tx: Any) -> dict[str, list[str]]:
    """The parameters that each transformation sees, by factory; later ones of a factory win."""

    def visit(node: RouteNode) -> Iterator[tuple[str, list[str]]]:
        yield node.factory, sorted(node.seen)
        for child in node.children:
            yield from visit(child)

    return dict(visit(route(tx, jax.eval_shape(lambda p: p, PARAMS))))


@gradtx.transformation
def on_the_first(inner: Any):
    """A wrapper of somebody else that hides all parameters but one."""

    def first(tree):
        return None if tree is None else {name: x if name == "b" else None for name, x in tree.items()}

    def update(updates, state, params=None):
        new, state = inner.update(first(updates), state, first(params))
        return updates | {"b": new["b"]}, state

    return gradtx.GradientTransformation(lambda params: inner.init(first(params)), update)


@gradtx.transformation
def of_adam_only(inner: Any):
    """A wrapper that takes no probe."""
    if inner.factory is None:
        raise TypeError("of_adam_only: inner must be a value")
    return gradtx.GradientTransformation(inner.init, inner.update)


@gradtx.transformation
def on_one_vector(inner: Any):
    """A wrapper that shows another tree."""

    def init(params):
        return inner.init({"all": jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(params)])})

    return gradtx.GradientTransformation(init, lambda updates, state, params=None: (updates, state))


def test_a_wrapper_that_hides_parameters():
    tx = gradtx.chain(on_the_first(gradtx.scale_by_adam()), gradtx.scale(-0.1))
    assert seen(tx) == {"chain": ["b", "w"], "on_the_first": ["b", "w"], "scale_by_adam": ["b"], "scale": ["b", "w"]}


def test_wrappers_in_wrappers():
    tx = gradtx.masked(
        gradtx.MultiSteps(on_the_first(gradtx.scale_by_adam()), 2), {"w": True, "b": False, "none": False}
    )
    assert seen(tx) == {"masked": ["b", "w"], "MultiSteps": ["w"], "on_the_first": ["w"], "scale_by_adam": []}


def test_wrappers_that_cannot_be_probed_hand_all_on():
    assert seen(of_adam_only(gradtx.scale_by_adam())) == {"of_adam_only": ["b", "w"], "scale_by_adam": ["b", "w"]}
    assert seen(on_one_vector(gradtx.scale_by_adam())) == {"on_one_vector": ["b", "w"], "scale_by_adam": ["b", "w"]}


def test_groups_of_parameters_that_are_hidden():
    tx = gradtx.groups([("w", "frozen"), ("b", {"step_size": 2.0})], gradtx.scale(1.0))
    assert seen(gradtx.masked(tx, {"w": False, "b": True, "none": False})) == {
        "masked": ["b", "w"],
        "groups": ["b"],
        "scale": ["b"],
    }
    assert seen(tx) == {"groups": ["b", "w"], "scale": ["b"]}


def test_labels_that_cannot_be_sorted():
    tx = gradtx.partition({"a": gradtx.scale(2.0), 1: gradtx.clip(1.0)}, {"w": "a", "b": 1, "none": 1})
    assert seen(tx) == {"partition": ["b", "w"], "scale": ["w"], "clip": ["b"]}


def test_what_a_transformation_made_by_hand_says_is_inside():
    assert seen(gradtx.inject_hyperparams(gradtx.sgd)(0.1))["scale_by_lr"] == ["b", "w"]


def test_boxes_reach_the_stages():
    role = gradtx.Role("bias")
    tx = gradtx.with_roles([("**", role)], gradtx.groups([("b", {"step_size": 2.0})], gradtx.scale(1.0)))
    node = route(tx, jax.eval_shape(lambda p: p, PARAMS))
    while node.children:
        node = node.children[0]
    assert {name: (box.role, box.group) for name, box in node.seen.items()} == {"w": (role, 0), "b": (role, 1)}
