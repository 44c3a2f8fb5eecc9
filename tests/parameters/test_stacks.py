# SPDX-License-Identifier: Apache-2.0
"""Every rule does with a stack of layers, whose role says so, what it does with each layer as a leaf of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import Role
from gradtx.core._transformation import is_transformation
from support import registry

LAYERS = 3
STEPS = 3
STACKS = {"w": 0, "b": 1, "s": 0}
"""The axis along which each parameter is stacked; the rest are not."""
RULES = (("w", Role("hidden", 0, in_axes=1, out_axes=2)), ("b", Role("bias", 1)), ("s", Role(stack=0)), ("e", Role()))
APART = (("w/*", Role("hidden", in_axes=0, out_axes=1)), ("b/*", Role("bias")), ("**", Role()))
"""The same roles for the layers as leaves."""


def values(seed: int, scale: float = 1.0) -> dict:
    draws = np.random.default_rng(seed)
    shapes = {"w": (LAYERS, 4, 5), "b": (5, LAYERS), "s": (LAYERS,), "e": (6, 4)}
    # Layers of very different sizes, so that a norm of all of them is far from that of each.
    sizes = np.array([0.1, 1.0, 10.0])
    arrays = {n: scale * draws.normal(size=shape) for n, shape in shapes.items()}
    for n, axis in STACKS.items():
        arrays[n] *= sizes.reshape([LAYERS if a == axis else 1 for a in range(len(shapes[n]))])
    return {n: jnp.asarray(x, jnp.float32) for n, x in arrays.items()}


def unstacked(tree: dict) -> dict:
    return {n: [jnp.take(x, i, STACKS[n]) for i in range(LAYERS)] if n in STACKS else x for n, x in tree.items()}


RANDOM = {"add_noise", "noisy_sgd", "hutchinson_estimator_diag_hessian", "sophia", "scale_by_sophia"}
"""Their draws are by leaf: a stack has one for all its layers, which as leaves have others."""
BLOCKS = {"stored"}
"""Codecs have blocks along the last axis of an array, which here is a stack's: layers share a scale."""
OF_OTHER_ROLES = registry.WITH_ROLES - {"with_roles"}
"""Their own roles, of the registry, are not those of this test."""
PER_EXAMPLE = sorted(
    registry.PER_EXAMPLE
    - {"differentially_private_aggregate", "dpsgd"}  # random
    - {"get_per_element_mean_and_sum_sq_diff_grads"}  # returns statistics, element by element
)
# Inside of `with_roles` the roles are those that it says.
WRAPPED = {
    name: [n for n, value in registry.example(name).arguments.items() if is_transformation(value)][:1]
    for name in registry.COVERED
    if name not in RANDOM | BLOCKS | {"with_roles"}
}


def extra(name: str, gradients: Any) -> dict[str, Any]:
    given = registry.extra_arguments(name)
    return given | {"grad": gradients} | ({"sum_sq_diff_grads": gradients} if "sum_sq_diff_grads" in given else {})


def run(tx: Any, name: str, start: Any, gradients: Any) -> Any:
    """The parameters after some steps, and those to evaluate with."""

    def body(carry: tuple, gradient: Any) -> tuple:
        params, state = carry
        updates, state = tx.update(gradient, state, params, **extra(name, gradient))
        return (gradtx.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(body, (start, tx.init(start)), gradients)
    return params, gradtx.eval_params(state, params)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(registry.COVERED) - RANDOM - BLOCKS - OF_OTHER_ROLES))
def test_stacked_equals_unstacked(name: str):
    assert_stacked_equals_unstacked(registry.example(name), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, wrapped in WRAPPED.items() if wrapped])
def test_wrappers_hand_roles_on(name: str):
    """What is inside tells a stack from one parameter."""
    tx = registry.example(name)
    inner = {n: gradtx.chain(gradtx.scale_by_trust_ratio(), tx.arguments[n]) for n in WRAPPED[name]}
    assert_stacked_equals_unstacked(tx.replace(**inner), name)


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_gradients_with_an_axis_of_examples(name: str):
    tx, start, examples = registry.example(name), values(0), [values(i) for i in (1, 2, 3)]

    def together(trees: list) -> Any:
        return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)

    def once(tx: Any, params: Any, gradients: Any) -> Any:
        return tx.update(gradients, tx.init(params), params)[0]

    found = once(gradtx.with_roles(RULES, tx), start, together(examples))
    expected = once(tx, unstacked(start), together(list(map(unstacked, examples))))
    jax.tree.map(np.testing.assert_array_equal, unstacked(found), expected)


def assert_stacked_equals_unstacked(tx: Any, name: str) -> None:
    start, steps = values(0), [values(step, 0.3) for step in range(1, STEPS + 1)]

    def together(trees: list) -> Any:
        return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)

    found = run(gradtx.with_roles(RULES, tx), name, start, together(steps))
    expected = run(gradtx.with_roles(APART, tx), name, unstacked(start), together(list(map(unstacked, steps))))
    for mine, theirs in zip(found, expected, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), unstacked(mine), theirs)
