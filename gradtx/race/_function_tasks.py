# SPDX-License-Identifier: Apache-2.0
"""Tasks that need no data: a badly conditioned quadratic, Rosenbrock's valley, logistic regression."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.race._task import Task


def quadratic() -> Task:
    """Curvatures from 0.001 to 1 along axes that are not those of the parameters, and noise in the gradient."""
    size, rng = 20, np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(size, size)))[0]
    hessian = jnp.asarray(axes @ np.diag(np.geomspace(1e-3, 1.0, size)) @ axes.T, jnp.float32)

    def value(x: jax.Array) -> jax.Array:
        return x @ (hessian @ x) / 2

    def noisy(x: jax.Array, key: jax.Array) -> jax.Array:
        return value(x) + 0.01 * jnp.sum(x * jax.random.normal(key, x.shape))

    def init(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (size,))

    return Task(init, noisy, 400, 5e-3, value, about="20 parameters, curvatures from 0.001 to 1, a noisy gradient")


def rosenbrock() -> Task:
    """A curved valley, from starts around (-1.2, 1)."""

    def value(x: jax.Array) -> jax.Array:
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    def init(key: jax.Array) -> jax.Array:
        return jnp.array([-1.2, 1.0]) + 0.2 * jax.random.normal(key, (2,))

    return Task(init, lambda x, key: value(x), 800, 0.05, value, about="2 parameters in a curved valley")


def logistic() -> Task:
    """Two classes that overlap, with inputs whose sizes differ by a factor of 30; batches of 32 of 512 examples."""
    inputs, examples, rng = 20, 1024, np.random.default_rng(0)
    features = rng.normal(size=(examples, inputs)) * np.geomspace(0.1, 3.0, inputs)
    slopes = rng.normal(size=inputs) / np.geomspace(0.1, 3.0, inputs)
    labels = rng.random(examples) < 1 / (1 + np.exp(-features @ slopes))
    x, signs = jnp.asarray(features, jnp.float32), jnp.asarray(2.0 * labels - 1, jnp.float32)
    held_out = examples // 2

    def loss(params: dict[str, jax.Array], x: jax.Array, signs: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softplus(-signs * (x @ params["w"] + params["b"])))

    def batch_loss(params: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        batch = jax.random.randint(key, (32,), 0, held_out)
        return loss(params, x[batch], signs[batch])

    return Task(
        lambda key: {"w": 0.1 * jax.random.normal(key, (inputs,)), "b": jnp.zeros(())},
        batch_loss,
        400,
        0.3,
        lambda params: loss(params, x[held_out:], signs[held_out:]),
        about="20 inputs of very different size, batches of 32, held-out loss",
    )
