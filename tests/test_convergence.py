# SPDX-License-Identifier: Apache-2.0
"""Every recipe minimizes an ill-conditioned quadratic, Rosenbrock's function and a softmax regression.

On each problem the loss must come down to a ten-thousandth of what it was at the start, both counted from the minimum.
That is one bar for all; what differs is in `ROWS`: a learning rate and a number of steps for each problem, and whether
the rate decays linearly to zero, which a method whose steps do not shrink with the gradient needs in order to stop.

A new recipe needs a row; without one, its test says so.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_iris

import gradtx
from gradtx.core.call import Factory
from gradtx.core.factory import REGISTRY

BAR = 1e-4
"""What may be left of the excess loss."""

RECIPES: dict[str, Factory] = {
    f.name: f
    for f in REGISTRY.values()
    if f.module.startswith("gradtx.optimizers.") and not f.name.startswith("scale_by_")
}


class Problem(NamedTuple):
    loss: Callable[[Any], jax.Array]
    start: Any
    least: float


def quadratic() -> Problem:
    """Ten dimensions, curvatures from 1 to 100, along axes that are turned away from the coordinates'."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    root = jnp.asarray(np.sqrt(np.geomspace(1, 100, 10))[:, None] * axes, jnp.float32)
    minimum = jnp.asarray(rng.normal(size=10), jnp.float32)
    return Problem(lambda p: 0.5 * jnp.sum((root @ (p - minimum)) ** 2), jnp.zeros(10), 0.0)


def rosenbrock() -> Problem:
    """From (-1.2, 1), the usual start, through a curved valley to (1, 1)."""
    return Problem(lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2, jnp.asarray([-1.2, 1.0]), 0.0)


def softmax_regression() -> Problem:
    """The three species of 150 irises from four standardized measurements, with a little L2 regularization."""
    x, y = load_iris(return_X_y=True)
    x = jnp.asarray((x - x.mean(0)) / x.std(0), jnp.float32)
    targets = jnp.asarray(np.eye(3)[y], jnp.float32)

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        logits = x @ p["w"] + p["b"][None, :]
        likelihood = jnp.sum(targets * jax.nn.log_softmax(logits), axis=1)
        return 0.005 * (jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 2)) - jnp.mean(likelihood)

    start = {"w": jnp.asarray(0.1 * np.random.default_rng(1).normal(size=(4, 3)), jnp.float32), "b": jnp.zeros(3)}
    return Problem(loss, start, 0.266201)  # the minimum by Newton's method in float64


PROBLEMS = {f.__name__: f() for f in (quadratic, rosenbrock, softmax_regression)}


class Row(NamedTuple):
    """Learning rate and steps for each problem, and how the recipe is called."""

    quadratic: tuple[float, int]
    rosenbrock: tuple[float, int]
    softmax_regression: tuple[float, int]
    decays: bool = False
    arguments: dict[str, Any] = {}


ROWS: dict[str, Row] = {}


def left(tx: Any, problem: Problem, steps: int) -> jax.Array:
    """How much of the excess loss is left after these steps, at the parameters that the method answers with."""

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        value, grad = jax.value_and_grad(problem.loss)(params)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=problem.loss)
        return (gradtx.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(step, (problem.start, tx.init(problem.start)), length=steps)
    last = problem.loss(gradtx.eval_params(state, params))
    return (last - problem.least) / (problem.loss(problem.start) - problem.least)


def make(name: str, row: Row, rate: Any, steps: int) -> Any:
    """The recipe with this rate, if it takes one."""
    record = RECIPES[name]
    schedule = (lambda count: rate * (1 - count / steps)) if row.decays else rate
    rates = {"learning_rate": schedule} if "learning_rate" in record.signature.parameters else {}
    return record.public(**rates, **row.arguments)


def test_every_recipe_has_a_row():
    assert sorted(set(RECIPES) - set(ROWS)) == [], "give each of these a row in ROWS"
    assert sorted(set(ROWS) - set(RECIPES)) == [], "these are gone: remove their rows"


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", RECIPES)
def test_converges(name: str, problem: str):
    if name not in ROWS:
        pytest.fail(f"{name} has no row in ROWS")
    rate, steps = getattr(ROWS[name], problem)
    tx = make(name, ROWS[name], rate, steps)
    assert jax.jit(lambda: left(tx, PROBLEMS[problem], steps))() < BAR
