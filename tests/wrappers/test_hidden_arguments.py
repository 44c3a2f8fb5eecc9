# SPDX-License-Identifier: Apache-2.0
"""Functions that a transformation is handed get whole trees, also where it sees only a part of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

PARAMS = {"b": jnp.array([3.0]), "w": jnp.array([1.0, 2.0])}
MASK, LABELS = {"b": False, "w": True}, {"b": "rest", "w": "some"}
PLAIN = [("**", gt.Role())]


def loss(params, factor=1.0):
    return factor * jnp.sum((params["w"] * params["b"]) ** 2) / 10 + jnp.sum((params["w"] - 2) ** 2)


def of_part(w, factor=1.0):
    return loss({"b": PARAMS["b"], "w": w}, factor)


def steps(tx, function, params, **extra):
    """The parameters after some steps; only `w` is trained."""
    state = tx.init(params)
    for _ in range(2):
        value, gradients = jax.value_and_grad(lambda p: function(p, **extra))(params)
        arguments = dict(value=value, grad=gradients, value_fn=function)
        if "grad_fn" in gt.needs(tx):
            arguments = {"grad_fn": lambda p, i: jax.grad(function)(p)}
        updates, state = tx.update(gradients, state, params, **arguments, **extra)
        updates = updates | {"b": None} if isinstance(updates, dict) else updates
        params = gt.apply_updates(params, updates)
    return params


WRAPPERS = {
    "masked": lambda tx: gt.masked(tx, MASK),
    "partition": lambda tx: gt.partition({"some": tx, "rest": gt.set_to_zero()}, LABELS),
    "frozen": lambda tx: gt.groups([("b", "frozen")], tx),
    "groups": lambda tx: gt.groups([("b", gt.set_to_zero())], tx),
    "masked with roles": lambda tx: gt.with_roles(PLAIN, gt.masked(tx, MASK)),
    "frozen with roles": lambda tx: gt.with_roles(PLAIN, gt.groups([("b", "frozen")], tx)),
}
INNER = {
    "sam": gt.sam(gt.sgd(0.1), gt.chain(gt.normalize(), gt.sgd(0.05)), opaque_mode=True),
    "backtracking": gt.chain(gt.sgd(1.0), gt.scale_by_backtracking_linesearch(5)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("inner", INNER)
def test_what_is_hidden_is_closed_over(wrapper, inner):
    with jax.disable_jit():
        found = steps(WRAPPERS[wrapper](INNER[inner]), loss, PARAMS)
        expected = steps(INNER[inner], of_part, PARAMS["w"])
    np.testing.assert_allclose(found["w"], expected, rtol=1e-6)
    np.testing.assert_array_equal(found["b"], PARAMS["b"])


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_lbfgs(wrapper):
    found = steps(WRAPPERS[wrapper](gt.lbfgs()), loss, PARAMS)
    np.testing.assert_allclose(found["w"], steps(optax.lbfgs(), of_part, PARAMS["w"]), rtol=1e-5)


@pytest.mark.parametrize("wrapper", ["masked", "frozen with roles"])
def test_further_arguments_of_the_function(wrapper):
    """They are read off its signature, which wrappers keep."""
    found = steps(WRAPPERS[wrapper](INNER["backtracking"]), loss, PARAMS, factor=4.0)
    np.testing.assert_allclose(found["w"], steps(INNER["backtracking"], of_part, PARAMS["w"], factor=4.0), rtol=1e-6)
