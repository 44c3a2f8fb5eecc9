# SPDX-License-Identifier: Apache-2.0
"""Every recipe minimizes an ill-conditioned quadratic, Rosenbrock's function and a softmax regression.

On each problem the loss must come down to a ten-thousandth of what it was at the start, both counted from the minimum.
That is one bar for all; what differs is in `ROWS`: a learning rate and a number of steps for each problem, and whether
the rate decays linearly to zero, which a method whose steps do not shrink with the gradient needs in order to stop.
Methods that find a rate of their own have the factor 1. The bar is met from starts nearby, too: where a method bounces,
rounding decides where it ends.

A new recipe needs a row; without one, its test says so.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradtx
from gradtx.core._calls import Factory
from gradtx.core._factory import REGISTRY
from support.registry import turns

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
    minimum: Any


def quadratic() -> Problem:
    """Ten dimensions, curvatures from 1 to 100, along axes that are turned away from the coordinates'."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    root = jnp.asarray(np.sqrt(np.geomspace(1, 100, 10))[:, None] * axes, jnp.float32)
    minimum = jnp.asarray(rng.normal(size=10), jnp.float32)
    return Problem(lambda p: 0.5 * jnp.sum((root @ (p - minimum)) ** 2), jnp.ones(10), minimum)


def rosenbrock() -> Problem:
    """From (-1.2, 1), the usual start, through a curved valley to (1, 1)."""
    start, minimum = jnp.asarray([-1.2, 1.0]), jnp.ones(2)
    return Problem(lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2, start, minimum)


def softmax_regression() -> Problem:
    """The three species of 150 irises from four standardized measurements, with a little L2 regularization."""
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    x = jnp.asarray((x - x.mean(0)) / x.std(0), jnp.float32)
    targets = jnp.asarray(np.eye(3)[y], jnp.float32)

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        logits = x @ p["w"] + p["b"][None, :]
        likelihood = jnp.sum(targets * jax.nn.log_softmax(logits), axis=1)
        return 0.005 * (jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 2)) - jnp.mean(likelihood)

    rng = np.random.default_rng(1)
    start = {n: jnp.asarray(0.1 * rng.normal(size=shape), jnp.float32) for n, shape in (("w", (4, 3)), ("b", (3,)))}
    return Problem(loss, start, newton(loss, start))


def newton(loss: Callable, start: Any) -> Any:
    flat, unravel = ravel_pytree(start)
    gradient, hessian = (jax.jit(d(lambda x: loss(unravel(x)))) for d in (jax.grad, jax.hessian))
    for _ in range(10):
        flat = flat - jnp.linalg.solve(hessian(flat), gradient(flat))
    return unravel(flat)


PROBLEMS = {f.__name__: functools.cache(f) for f in (quadratic, rosenbrock, softmax_regression)}


class Row(NamedTuple):
    """Learning rate and steps for each problem, and how the recipe is called; None for a problem it cannot solve."""

    quadratic: tuple[float, int] | None
    rosenbrock: tuple[float, int] | None
    softmax_regression: tuple[float, int] | None
    decays: bool = False
    arguments: dict[str, Any] = {}
    examples: bool = False  # gradients get an axis of examples, the first
    on_sphere: bool = False  # the start gets the norms of the minimum, as the method keeps them


ROWS: dict[str, Row] = {
    "acprop": Row((0.01, 1_000), (0.0005, 10_000), (0.05, 300)),
    "adabelief": Row((1.0, 300), (0.2, 1_000), (0.1, 300)),
    "adabound": Row((0.002, 300), (0.0003, 1_000), (0.5, 300)),
    "adadelta": Row((0.1, 10_000), (0.01, 30_000), (2.0, 1_000)),
    "adafactor": Row((1.0, 300), (0.02, 10_000), (0.5, 300), decays=True),
    "adafactor_big_vision": Row((0.1, 300), (0.02, 1_000), (0.02, 1_000)),
    "adagrad": Row((5.0, 300), (0.5, 10_000), (1.0, 300)),
    "adam": Row((1.0, 300), (0.2, 1_000), (0.2, 300)),
    "adam_mini": Row((1.0, 300), (0.05, 3_000), (0.2, 300)),
    "adamax": Row((5.0, 300), (0.2, 3_000), (1.0, 300)),
    "adamaxw": Row((2.0, 300), (0.2, 3_000), (1.0, 300)),
    "adamg": Row((1.0, 1_000), (1.0, 3_000), (1.0, 10_000)),
    "adamod": Row((2.0, 300), (0.2, 3_000), (2.0, 300)),
    "adamp": Row((0.5, 300), (0.2, 1_000), (0.5, 300)),
    "adamuon": Row((1.0, 300), (0.2, 1_000), (0.2, 300), decays=True, arguments={"weight_decay": 0.0}),
    "adamw": Row((1.0, 300), (0.2, 1_000), (1.0, 300)),
    "adan": Row((1.0, 300), (0.002, 3_000), (1.0, 300)),
    "ademamix": Row((5.0, 300), (0.1, 3_000), (2.0, 300)),
    "adopt": Row((1.0, 300), (2.0, 1_000), (0.5, 1_000)),
    "aggmo": Row((0.01, 300), (0.0005, 1_000), (2.0, 300)),
    "amsgrad": Row((5.0, 300), (1.0, 3_000), (5.0, 300)),
    "apollo": Row((1.0, 300), (0.2, 1_000), (0.1, 300)),
    "apollo_mini": Row((1.0, 300), (0.2, 1_000), (0.05, 300)),
    "asgd": Row((0.005, 1_000), (0.001, 30_000), (2.0, 300)),
    "aurora": Row((1.0, 300), (0.2, 1_000), (0.1, 300), decays=True, arguments={"weight_decay": 0.0}),
    "came": Row((0.2, 300), (0.2, 300), (0.02, 300)),
    "cocob": Row((1.0, 3_000), (1.0, 30_000), (1.0, 3_000)),
    "dadapt_adamw": Row((1.0, 1_000), (1.0, 3_000), (1.0, 300), decays=True),
    "dadapt_adan": Row((1.0, 300), (1.0, 1_000), (1.0, 300), decays=True),
    # Signs of little more than the gradient bounce along the valley: after 10,000 steps, nearly four times the bar is
    # left.
    "dadapt_lion": Row((1.0, 3_000), None, (1.0, 3_000), decays=True),
    "dadapt_sgd": Row((1.0, 300), (1.0, 3_000), (1.0, 300)),
    # Rates grow by kappa, which must be small against the rates that the problems bear.
    "delta_bar_delta": Row((0.02, 300), (0.002, 3_000), (10.0, 300), arguments={"kappa": 1e-05}),
    "diffgrad": Row((1.0, 300), (0.5, 1_000), (1.0, 300)),
    "dion": Row((1.0, 300), (1.0, 1_000), (0.1, 300), decays=True, arguments={"rank": 3, "weight_decay": 0.0}),
    "dion2": Row((1.0, 300), (1.0, 1_000), (0.1, 1_000), decays=True, arguments={"weight_decay": 0.0}),
    "dog": Row((1.0, 3_000), (1.0, 10_000), (1.0, 1_000)),
    "dowg": Row((1.0, 300), (1.0, 30_000), (1.0, 300)),
    # Little noise, and a clip that only the steepest gradients reach.
    "dpsgd": Row(
        (0.01, 1_000),
        (0.0005, 30_000),
        (0.02, 30_000),
        arguments={"l2_norm_clip": 10.0, "noise_multiplier": 0.001, "seed": 0},
        examples=True,
    ),
    "fira": Row((1.0, 300), (0.2, 1_000), (0.2, 300)),
    "fromage": Row((0.05, 300), (0.1, 1_000), (0.05, 300), decays=True),
    "ftrl": Row((5.0, 300), (0.5, 10_000), (1.0, 300)),
    "galore": Row((1.0, 300), (0.2, 1_000), (0.1, 1_000)),
    "gpa_adamw": Row((5.0, 1_000), (1.0, 1_000), (1.0, 300)),
    "grams": Row((2.0, 300), (1.0, 3_000), (2.0, 300), decays=True),
    # Norms stay, so the minimum must be on the sphere of the start; on the circle, Rosenbrock has another one.
    "hyperball": Row((0.002, 3_000), None, (0.001, 3_000), on_sphere=True),
    "lamb": Row((0.1, 300), (0.05, 3_000), (0.05, 1_000), decays=True),
    "laprop": Row((1.0, 300), (0.2, 1_000), (0.2, 300)),
    "kl_shampoo": Row((0.1, 1_000), (0.02, 3_000), (0.1, 3_000), decays=True),
    "kl_soap": Row((0.1, 1_000), (0.02, 3_000), (0.1, 1_000), decays=True),
    "lars": Row((1.0, 300), (0.2, 10_000), (1.0, 1_000)),
    "lbfgs": Row((1.0, 300), (1.0, 300), (1.0, 300)),
    "lion": Row((0.002, 3_000), (0.0005, 10_000), (0.001, 3_000)),
    "madgrad": Row((0.05, 300), (0.01, 1_000), (0.1, 300)),
    "mars": Row((0.05, 300), (0.01, 1_000), (0.2, 300)),
    "momo": Row((1.0, 300), (1.0, 300), (1.0, 300)),
    "momo_adam": Row((1.0, 300), (1.0, 300), (1.0, 300)),
    "muon": Row((0.5, 300), (0.2, 1_000), (0.1, 300), decays=True),
    "nadam": Row((10.0, 300), (0.02, 3_000), (0.1, 300)),
    "nadamw": Row((0.5, 300), (0.02, 3_000), (0.1, 300)),
    "namo": Row((1.0, 300), (1.0, 1_000), (0.5, 300), decays=True, arguments={"weight_decay": 0.0}),
    "noisy_sgd": Row((0.005, 1_000), (0.0005, 30_000), (0.02, 30_000)),
    "normuon": Row((1.0, 300), (0.2, 1_000), (0.1, 300), decays=True),
    "novograd": Row((0.01, 300), (0.001, 1_000), (0.005, 300)),
    "optimistic_adam": Row((2.0, 300), (0.05, 3_000), (0.2, 300), decays=True),
    "optimistic_adam_v2": Row((2.0, 300), (0.05, 3_000), (0.2, 300), decays=True),
    "optimistic_gradient_descent": Row((0.002, 3_000), (0.0005, 30_000), (0.5, 1_000)),
    "polargrad": Row((1.0, 300), (1.0, 1_000), (5.0, 300), decays=True),
    "polyak_sgd": Row((1.0, 300), (1.0, 1_000), (1.0, 300)),
    "prodigy": Row((1.0, 300), (1.0, 1_000), (1.0, 300), decays=True),
    "psgd_kron": Row((0.1, 1_000), (0.02, 3_000), (0.1, 1_000), decays=True),
    "qhadam": Row((0.1, 1_000), (0.002, 10_000), (0.01, 3_000)),
    "qhm": Row((0.02, 1_000), (0.002, 10_000), (5.0, 1_000)),
    "radam": Row((0.02, 3_000), (0.002, 10_000), (1.0, 300)),
    "rmsprop": Row((0.005, 3_000), (0.001, 10_000), (0.002, 3_000)),
    "rprop": Row((1.0, 300), (0.02, 3_000), (0.0002, 300)),
    "schedule_free_adamw": Row((20.0, 300), (0.02, 10_000), (0.5, 300)),
    # The loss of the third has not the minimum 0 that Polyak's step aims at.
    "schedule_free_plus": Row(
        (1.0, 1_000), (1.0, 3_000), (1.0, 1_000), arguments={"polyak_decay": 0.9, "weight_step_power": 2.0}
    ),
    "schedule_free_sgd": Row((0.05, 300), (0.002, 30_000), (10.0, 300)),
    "scion": Row((0.05, 300), (0.007, 1_000), (0.05, 300), decays=True, arguments={"constrained": False}),
    "sgd": Row((0.005, 1_000), (0.001, 30_000), (2.0, 300)),
    "sgd_sai": Row((0.02, 300), (0.002, 3_000), (2.0, 300)),
    "shampoo": Row((0.1, 3_000), (0.1, 3_000), (0.1, 3_000), decays=True, arguments={"b2": 0.9, "eps": 1e-6}),
    "sign_sgd": Row((0.1, 300), (0.0005, 30_000), (0.01, 1_000), decays=True),
    "signum": Row((0.001, 10_000), (0.0002, 30_000), (0.002, 3_000)),
    "simplified_ademamix": Row((0.0002, 3_000), (0.0002, 10_000), (0.0002, 3_000)),
    "sm3": Row((10.0, 300), (5.0, 3_000), (2.0, 300)),
    "soap": Row((0.1, 1_000), (0.02, 3_000), (0.1, 1_000), decays=True),
    "sophia": Row((0.02, 1_000), (0.02, 1_000), (0.01, 1_000)),
    # Nothing to sample labels from: the gradient stands in for that of sampled ones.
    "sophia_g": Row((0.2, 1_000), (1.0, 300), (0.001, 3_000), arguments={"batch_size": 1}),
    # Two of the problems have vectors, which have a factor of their own in place of one by the shape.
    "splus": Row(
        (0.1, 1_000),
        (0.01, 1_000),
        (0.1, 1_000),
        decays=True,
        arguments={"other_scale": 1.0, "weight_decay": 0.0, "ema": 0.9, "precondition_frequency": 10},
    ),
    "stable_adamw": Row((1.0, 300), (0.001, 10_000), (0.1, 300)),
    "yogi": Row((1.0, 300), (0.2, 1_000), (0.2, 300)),
}


def left(name: str, row: Row, problem: Problem, rate: Any, steps: int) -> jax.Array:
    """How much of the excess loss is left after these steps, at the parameters that the method answers with."""
    tx = make(name, row, rate, steps)

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        value, grad = jax.value_and_grad(problem.loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": problem.loss, "obj_fn": problem.loss, "sampled_grad": grad}
        gradients = jax.tree.map(lambda g: g[None], grad) if row.examples else grad
        updates, state = tx.update(gradients, state, params, **extra)
        return (gradtx.apply_updates(params, updates), state), None

    start = jax.tree.map(at_norm_of, problem.start, problem.minimum) if row.on_sphere else problem.start
    (params, state), _ = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    first, last, least = map(problem.loss, (start, gradtx.eval_params(state, params), problem.minimum))
    return (last - least) / (first - least)


def at_norm_of(x: jax.Array, y: jax.Array) -> jax.Array:
    return x * (jnp.linalg.norm(y) / jnp.linalg.norm(x))


def make(name: str, row: Row, rate: Any, steps: int) -> Any:
    """The recipe with this rate, if it takes one (`polyak_sgd` has a limit of its own)."""
    record = RECIPES[name]
    schedule = (lambda count: rate * (1 - count / steps)) if row.decays else rate
    rates = {"learning_rate": schedule} if "learning_rate" in record.signature.parameters else {}
    return record.public(**rates, **row.arguments)


def test_every_recipe_has_a_row():
    assert sorted(set(RECIPES) - set(ROWS)) == [], "give each of these a row in ROWS"
    assert sorted(set(ROWS) - set(RECIPES)) == [], "these are gone: remove their rows"


RUNS = [
    turns((n, p), i + k) for i, n in enumerate(RECIPES) for k, p in enumerate(PROBLEMS) if getattr(ROWS.get(n), p, 1)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "problem"), RUNS)
def test_converges(name: str, problem: str):
    assert name in ROWS, f"give {name} a row in ROWS"
    rate, steps = getattr(ROWS[name], problem)
    given = PROBLEMS[problem]()
    assert jax.jit(lambda: left(name, ROWS[name], given, rate, steps))() < BAR
