# SPDX-License-Identifier: Apache-2.0
"""Every rule does with a stack of layers, whose role says so, what it does with each layer as a leaf of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import test_laws
from gradtx import Role

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
"""Their draws are by leaf."""


def extra(name: str, gradients: Any) -> dict[str, Any]:
    given = test_laws.extra_arguments(name)
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
@pytest.mark.parametrize("name", sorted(set(test_laws.COVERED) - RANDOM))
def test_stacked_equals_unstacked(name: str):
    tx, start, steps = test_laws.example(name), values(0), [values(step, 0.3) for step in range(1, STEPS + 1)]

    def together(trees: list) -> Any:
        return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)

    found = run(gradtx.with_roles(RULES, tx), name, start, together(steps))
    expected = run(gradtx.with_roles(APART, tx), name, unstacked(start), together(list(map(unstacked, steps))))
    for mine, theirs in zip(found, expected, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), unstacked(mine), theirs)
