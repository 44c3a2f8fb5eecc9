# SPDX-License-Identifier: Apache-2.0
"""A transformer that predicts the next character of the language reference that comes with Python."""

from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._roles import Role
from gradtx.race._task import Task

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))  # what else the text has is left out
WIDTH, HEADS, LAYERS, LENGTH, BATCH = 32, 2, 2, 32, 4

ROLES = [
    (("embed", "positions"), Role("embedding")),
    ("head", Role("head")),
    ("layers/norm*", Role("norm", stack=0)),
    ("layers/qkv", Role("hidden", stack=0, in_axes=1, out_axes=2, blocks=(WIDTH,) * 3)),
    ("layers/**", Role("hidden", stack=0, in_axes=1, out_axes=2)),
    ("norm", Role("norm")),
]


def transformer() -> Task:
    """Two layers of width 32; batches of 4 windows of 32 characters; the last tenth of the text is held out."""
    text = "".join(c for name in sorted(topics) for c in topics[name] if c in CHARACTERS)
    numbers = jnp.asarray([CHARACTERS.index(c) for c in text], jnp.int8)
    end, window = len(text) * 9 // 10, jnp.arange(LENGTH + 1)[None]
    held_out = numbers[end + jnp.linspace(0, len(text) - end - LENGTH - 1, 16, dtype=jnp.int32)[:, None] + window]

    def batch_loss(weights: dict[str, Any], key: jax.Array) -> jax.Array:
        return _loss(weights, numbers[jax.random.randint(key, (BATCH, 1), 0, end - LENGTH) + window])

    about = "two layers of width 32, 4 windows of 32 characters, held-out loss"
    return Task(_init, batch_loss, 240, 2.6, lambda w: _loss(w, held_out), ROLES, about)


def _init(key: jax.Array) -> dict[str, Any]:
    def normal(i: int, size: float, *shape: int) -> jax.Array:
        return size * jax.random.normal(jax.random.fold_in(key, i), shape)

    inner, last = WIDTH**-0.5, (2 * LAYERS) ** -0.5
    return {
        "embed": normal(0, 0.1, len(CHARACTERS), WIDTH),
        "positions": normal(1, 0.1, LENGTH, WIDTH),
        "layers": {
            "norm1": jnp.ones((LAYERS, WIDTH)),
            "qkv": normal(2, inner, LAYERS, WIDTH, 3 * WIDTH),
            "out": normal(3, last * inner, LAYERS, WIDTH, WIDTH),
            "norm2": jnp.ones((LAYERS, WIDTH)),
            "up": normal(4, inner, LAYERS, WIDTH, 4 * WIDTH),
            "down": normal(5, last * inner / 2, LAYERS, 4 * WIDTH, WIDTH),
        },
        "norm": jnp.ones(WIDTH),
        "head": normal(6, inner, WIDTH, len(CHARACTERS)),
    }


def _loss(weights: dict[str, Any], windows: jax.Array) -> jax.Array:
    """Cross entropy in nats a character."""
    characters = jax.nn.one_hot(windows, len(CHARACTERS))  # not by index, whose derivative is slow on CPUs
    x = characters[:, :-1] @ weights["embed"] + weights["positions"][None]
    for i in range(LAYERS):
        layer = {name: p[i] for name, p in weights["layers"].items()}
        qkv = (_normed(x, layer["norm1"]) @ layer["qkv"]).reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS)
        attended = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0), is_causal=True)
        x = x + attended.reshape(x.shape) @ layer["out"]
        x = x + jax.nn.relu(_normed(x, layer["norm2"]) @ layer["up"]) @ layer["down"]
    found = jax.nn.log_softmax(_normed(x, weights["norm"]) @ weights["head"])
    return -jnp.mean(jnp.sum(found * characters[:, 1:], -1))


def _normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale[None, None]
