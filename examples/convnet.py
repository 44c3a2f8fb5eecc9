# SPDX-License-Identifier: Apache-2.0
"""A small convolution net on handwritten digits, by Nesterov momentum, AdamW and Muon.

Two convolutions with group norms, the mean over the image, and a linear layer, on the data of digits.py. Roles say that
height, width and input channels of a kernel are the inputs of a matrix, so that Muon treats convolutions as matrices,
and that norms and biases are not decayed. Each has the usual rate, three and ten times as much, warmed up and then
decayed by a cosine: a comparison at one rate would be one of rates.

    python examples/convnet.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from digits import Data, load
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gradtx

CHANNELS, GROUPS, BATCH = (1, 16, 32), 4, 64
ROLES = [
    ("conv*/kernel", gradtx.Role("hidden", kernel=(0, 1), in_axes=2, out_axes=3)),
    ("norm*/*", gradtx.Role("norm")),
    ("head/w", gradtx.Role("head")),
    ("head/b", gradtx.Role("bias")),
]


FACTORS = 1.0, 3.0, 10.0  # of the usual rates


def optimizers(steps: int, factor: float) -> dict[str, Any]:
    def schedule(peak: float) -> Any:
        return gradtx.warmup_cosine_decay_schedule(0.0, factor * peak, steps // 10, steps)

    decayed = ~gradtx.where(gradtx.of_kind("norm", "bias"))
    momentum = gradtx.sgd(schedule(0.1), momentum=0.9, nesterov=True)
    return {
        "Nesterov momentum": gradtx.chain(gradtx.add_decayed_weights(5e-4, decayed), momentum),
        "AdamW": gradtx.adamw(schedule(3e-3), weight_decay=0.05, mask=decayed),
        "Muon": gradtx.muon(schedule(2e-2), weight_decay=0.05, adam_learning_rate=schedule(3e-3)),
    }


def init_weights(key: jax.Array) -> dict[str, Any]:
    weights: dict[str, Any] = {}
    for i, (inputs, outputs) in enumerate(zip(CHANNELS, CHANNELS[1:], strict=False)):
        kernel = jax.random.normal(jax.random.fold_in(key, i), (3, 3, inputs, outputs)) * (2 / (9 * inputs)) ** 0.5
        weights[f"conv{i}"] = {"kernel": kernel}
        weights[f"norm{i}"] = {"scale": jnp.ones(outputs), "bias": jnp.zeros(outputs)}
    return {**weights, "head": {"w": jnp.zeros((CHANNELS[-1], 10)), "b": jnp.zeros(10)}}


def group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Each image's groups of channels get mean 0 and variance 1 over their pixels."""
    groups = x.reshape(*x.shape[:3], GROUPS, -1)
    mean, variance = (f(groups, axis=(1, 2, 4), keepdims=True) for f in (jnp.mean, jnp.var))
    normal = (groups - mean) * jax.lax.rsqrt(variance + 1e-5)
    return normal.reshape(x.shape) * scale[None, None, None] + bias[None, None, None]


def logits(weights: dict[str, Any], images: jax.Array) -> jax.Array:
    x = images.reshape(-1, 8, 8, 1)
    for i in range(len(CHANNELS) - 1):
        stride = (1, 1) if i == 0 else (2, 2)
        axes = "NHWC", "HWIO", "NHWC"
        x = jax.lax.conv_general_dilated(x, weights[f"conv{i}"]["kernel"], stride, "SAME", dimension_numbers=axes)
        x = jax.nn.relu(group_norm(x, **weights[f"norm{i}"]))
    return jnp.mean(x, axis=(1, 2)) @ weights["head"]["w"] + weights["head"]["b"][None]


def loss(weights: dict[str, Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(gradtx.losses.softmax_cross_entropy_with_integer_labels(logits(weights, images), labels))


@jax.jit
def step(tx: Any, weights: Any, state: Any, data: Data, i: jax.Array) -> tuple:
    batch = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (BATCH,), 0, len(data.images))
    grads = jax.grad(loss)(weights, data.images[batch], data.labels[batch])
    updates, state = tx.update(grads, state, weights)
    return gradtx.apply_updates(weights, updates), state


@jax.jit
def measured(weights: Any, data: Data) -> tuple:
    """The loss on what was trained on, and the accuracy on what was not."""
    right = jnp.argmax(logits(weights, data.held_out_images), axis=1) == data.held_out_labels
    return loss(weights, data.images, data.labels), jnp.mean(right)


def main(argv: Sequence[str] | None = None) -> dict[str, list[tuple[float, float]]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of each training (default: 200)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data, results = Console(quiet=args.quiet), load(), {}
    columns = (f"rate x {factor:g}" for factor in FACTORS)
    table = Table("optimizer", *columns, title="Training loss, held-out accuracy")
    for name in optimizers(args.steps, 1.0):
        results[name] = []
        for factor in track(FACTORS, name, console=console):
            tx, weights = (
                gradtx.with_roles(ROLES, optimizers(args.steps, factor)[name]),
                init_weights(jax.random.key(0)),
            )
            state = tx.init(weights)
            for i in range(args.steps):  # rates are arguments of the compiled step, which all three share
                weights, state = step(tx, weights, state, data, jnp.int32(i))
            results[name].append(tuple(map(float, measured(weights, data))))
        table.add_row(name, *(f"{loss:.3f}  {right:.1%}" for loss, right in results[name]))
    console.print(table)
    return results


if __name__ == "__main__":
    main()
