# SPDX-License-Identifier: Apache-2.0
"""The transformer of sample_efficiency.py in flax linen, flax nnx and equinox, for frameworks.py.

Each has its parameters elsewhere: linen scans over its layers, so that they are stacked; nnx and equinox have lists of
layers, and equinox has outputs before inputs in its matrices. Each starts from the values of the plain model.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from sample_efficiency import CHARACTERS, HEADS, LAYERS, LENGTH, WIDTH, norm

MATRICES = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}


def block(m: Any, x: jax.Array) -> jax.Array:
    """A layer, from what its module has: causal attention, then two matrices with a squared ReLU between them."""
    q, k, v = jnp.moveaxis(m.qkv(m.norm1(x)).reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS), 2, 0)
    x = x + m.out(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))
    return x + m.down(jax.nn.relu(m.up(m.norm2(x))) ** 2)


def through(layers: Any, x: jax.Array) -> jax.Array:
    for layer in layers:
        x = block(layer, x)
    return x


def loss_of(m: Any, windows: jax.Array, through: Callable = through) -> jax.Array:
    """Cross entropy in nats a character."""
    x = through(m.layers, m.embed(windows[:, :-1]) + m.positions[...][None])
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(m.head(m.norm(x))), windows[:, 1:, None], -1))


def named_as_in_flax(weights: dict[str, Any]) -> dict[str, Any]:
    """The variables of flax's modules: a matrix is a kernel, a norm has a scale."""
    kinds = {"embed": "embedding", "norm": "scale", "norm1": "scale", "norm2": "scale"}

    def named(tree: dict[str, Any]) -> dict[str, Any]:
        return {name: {kinds.get(name, "kernel"): x} for name, x in tree.items()}

    return {**named(weights), "layers": named(weights["layers"]), "positions": weights["positions"]}


def layers_of(stacked: Any) -> list:
    return [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(LAYERS)]


# flax linen: named_as_in_flax(weights) are its parameters.


class LinenBlock(nn.Module):
    def setup(self):
        self.norm1, self.norm2 = nn.RMSNorm(), nn.RMSNorm()
        for name, (_, outputs) in MATRICES.items():
            setattr(self, name, nn.Dense(outputs, use_bias=False))

    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return block(self, x), None


class LinenTransformer(nn.Module):
    def setup(self):
        self.embed, self.head = nn.Embed(len(CHARACTERS), WIDTH), nn.Dense(len(CHARACTERS), use_bias=False)
        self.positions = self.param("positions", nn.initializers.zeros, (LENGTH, WIDTH))
        scanned = nn.scan(LinenBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS)
        self.layers, self.norm = scanned(), nn.RMSNorm()

    def __call__(self, windows: jax.Array) -> jax.Array:
        return loss_of(self, windows, lambda layers, x: layers(x, None)[0])


# flax nnx


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm1, self.norm2 = nnx.RMSNorm(WIDTH, rngs=rngs), nnx.RMSNorm(WIDTH, rngs=rngs)
        for name, shape in MATRICES.items():
            setattr(self, name, nnx.Linear(*shape, use_bias=False, rngs=rngs))


class NnxTransformer(nnx.Module):
    def __init__(self, weights: dict[str, Any], rngs: nnx.Rngs):
        self.embed = nnx.Embed(len(CHARACTERS), WIDTH, rngs=rngs)
        self.positions = nnx.Param(jnp.zeros((LENGTH, WIDTH)))
        self.layers = nnx.List([NnxBlock(rngs) for _ in range(LAYERS)])
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, len(CHARACTERS), use_bias=False, rngs=rngs)
        values, variables = named_as_in_flax(weights), nnx.state(self)
        values["layers"] = dict(enumerate(layers_of(values["layers"])))
        nnx.replace_by_pure_dict(variables, values)
        nnx.update(self, variables)


# equinox, whose own layers are for vectors: these are for any number of axes in front.


class Embedding(eqx.Module):
    weight: jax.Array

    def __call__(self, characters: jax.Array) -> jax.Array:
        return self.weight[characters]


class Matrix(eqx.Module):
    weight: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.weight.T


class Norm(eqx.Module):
    weight: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return norm(x, self.weight)


def module(weight: jax.Array) -> Any:
    return Norm(weight) if weight.ndim == 1 else Matrix(weight.T)


class EquinoxBlock(eqx.Module):
    norm1: Norm
    qkv: Matrix
    out: Matrix
    norm2: Norm
    up: Matrix
    down: Matrix


class EquinoxTransformer(eqx.Module):
    embed: Embedding
    positions: jax.Array
    layers: list[EquinoxBlock]
    norm: Norm
    head: Matrix

    def __init__(self, weights: dict[str, Any]):
        self.embed, self.positions = Embedding(weights["embed"]), weights["positions"]
        layers = layers_of(weights["layers"])
        self.layers = [EquinoxBlock(**{name: module(x) for name, x in layer.items()}) for layer in layers]
        self.norm, self.head = Norm(weights["norm"]), Matrix(weights["head"].T)
