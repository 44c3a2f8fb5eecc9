# SPDX-License-Identifier: Apache-2.0
"""Tasks on scikit-learn's 1,797 images of digits, of which a fifth is held out: a network and a convolution net."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._roles import Role
from gradtx.race._task import Task

Weights = dict[str, jax.Array]
BATCH = 32


@functools.cache
def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Images of shape (1797, 8, 8) from 0 to 1, in an order that mixes the writers, and labels as unit vectors.

    Raises:
      ImportError: without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("it needs scikit-learn's images: pip install 'gradtx[race]'") from error
    pixels, numbers = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8) / 16
    labels = np.eye(10, dtype=np.float32)[np.asarray(numbers, np.int32)]
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], labels[order]


def digits() -> Task:
    """Two hidden layers of 32."""
    sizes = (64, 32, 32, 10)

    def init(key: jax.Array) -> Weights:
        pairs = list(zip(sizes, sizes[1:], strict=False))
        weights = {f"w{i}": _he(jax.random.fold_in(key, i), pair, pair[0]) for i, pair in enumerate(pairs)}
        return weights | {f"b{i}": jnp.zeros(n) for i, (_, n) in enumerate(pairs)}

    def logits(weights: Weights, images: jax.Array) -> jax.Array:
        x = images.reshape(len(images), -1)
        for i in range(3):
            x = (jax.nn.relu(x) if i else x) @ weights[f"w{i}"] + weights[f"b{i}"][None]
        return x

    roles = [("w2", Role("head")), ("w*", Role("hidden", in_axes=0, out_axes=1)), ("b*", Role("bias"))]
    return _classifier(init, logits, roles, 300, 0.15, "two hidden layers of 32 on 8 x 8 images, held-out loss")


def convolution() -> Task:
    """Two layers of 3 x 3 kernels, 8 and 16 channels, each halved by a mean, and a linear head."""

    def init(key: jax.Array) -> Weights:
        shapes = {"kernel0": (3, 3, 1, 8), "kernel1": (3, 3, 8, 16), "head": (64, 10)}
        keys = jax.random.split(key, len(shapes))
        weights = {n: _he(k, s, int(np.prod(s[:-1]))) for k, (n, s) in zip(keys, shapes.items(), strict=True)}
        return weights | {"bias0": jnp.zeros(8), "bias1": jnp.zeros(16)}

    def logits(weights: Weights, images: jax.Array) -> jax.Array:
        x = images[..., None]
        for i in range(2):
            x = jax.nn.relu(_convolved(x, weights[f"kernel{i}"]) + weights[f"bias{i}"][None, None, None])
            batch, height, width, channels = x.shape
            x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        return x.reshape(len(images), -1) @ weights["head"]

    kernel = Role("hidden", kernel=(0, 1), in_axes=2, out_axes=3)
    roles = [("head", Role("head")), ("kernel*", kernel), ("bias*", Role("bias"))]
    return _classifier(init, logits, roles, 200, 0.25, "two layers of 3 x 3 kernels on 8 x 8 images, held-out loss")


def _classifier(init: Callable, logits: Callable, roles: list, steps: int, target: float, about: str) -> Task:
    images, labels = (jnp.asarray(x) for x in images_and_labels())
    end = len(images) * 4 // 5

    def loss(weights: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits(weights, images)) * labels, -1))

    def batch_loss(weights: Weights, key: jax.Array) -> jax.Array:
        batch = jax.random.randint(key, (BATCH,), 0, end)
        return loss(weights, images[batch], labels[batch])

    return Task(init, batch_loss, steps, target, lambda w: loss(w, images[end:], labels[end:]), roles, about)


def _he(key: jax.Array, shape: tuple[int, ...], inputs: int) -> jax.Array:
    return jax.random.normal(key, shape) * (2 / inputs) ** 0.5


def _convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """With zeros around. As one product of shifted images: convolutions with a kernel for each run are slow on CPUs."""
    _, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, -1) @ kernel.reshape(9 * channels, -1)
