# SPDX-License-Identifier: Apache-2.0
"""Gradients with respect to learning rate and momentum, through a whole run.

A run is a function from hyperparameters to the held-out loss in its end, and a transformation is a tree of its numbers,
so `jax.grad` of the function is a tree of gradients: one for each hyperparameter. An outer Adam descends along them, in
the logarithm of the rate and the logit of the momentum, so that both stay where they mean something. All steps of a run
are kept for the way back; `jax.checkpoint` computes again what is inside of a step. The network is smooth, with tanh:
with ReLU, the end of a run jumps where a neuron turns on, which no gradient sees. The data are those of digits.py.

    python examples/hypergradients.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from digits import Data, init_weights, load
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gradtx

SIZES, BATCH = (64, 20, 20, 10), 64


def loss_of(weights: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    x = images
    for i, layer in enumerate(weights.values()):
        x = (jnp.tanh(x) if i else x) @ layer["w"] + layer["b"][None]
    return jnp.mean(gradtx.losses.softmax_cross_entropy_with_integer_labels(x, labels))


def run(tx: Any, data: Data, steps: int) -> jax.Array:
    """The held-out loss after a training from the same start on the same batches."""

    @jax.checkpoint
    def step(carry: tuple, i: jax.Array) -> tuple:
        weights, state = carry
        batch = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (BATCH,), 0, len(data.images))
        grads = jax.grad(loss_of)(weights, data.images[batch], data.labels[batch])
        updates, state = tx.update(grads, state, weights)
        return (gradtx.apply_updates(weights, updates), state), None

    weights = init_weights(jax.random.key(0), SIZES)
    (weights, _), _ = jax.lax.scan(step, (weights, tx.init(weights)), jnp.arange(steps, dtype=jnp.int32))
    return loss_of(weights, data.held_out_images, data.held_out_labels)


def optimizer(free: dict[str, jax.Array]) -> Any:
    """From two numbers without bounds."""
    return gradtx.sgd(jnp.exp(free["rate"]), momentum=jax.nn.sigmoid(free["momentum"]))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="of the outer descent (default: 30)")
    parser.add_argument("--inner", type=int, default=100, help="steps of each run (default: 100)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data = Console(quiet=args.quiet), load()

    # With respect to the transformation itself: the gradient has its form.
    tx = gradtx.sgd(jnp.float32(0.02), momentum=jnp.float32(0.5))
    value_of = jax.jit(lambda tx: run(tx, data, args.inner))
    gradient = jax.jit(jax.grad(lambda tx: run(tx, data, args.inner)))(tx)
    console.print(f"{tx} ends at {value_of(tx):.4f}, and the gradient of that is\n{gradient}")

    free = start = {"rate": jnp.log(0.02), "momentum": jnp.float32(0.0)}
    outer = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1))
    state, rows = outer.init(free), []

    @jax.jit
    def outer_step(free: Any, state: Any) -> tuple:
        loss, grads = jax.value_and_grad(lambda free: run(optimizer(free), data, args.inner))(free)
        updates, state = outer.update(grads, state, free)
        return gradtx.apply_updates(free, updates), state, loss, grads

    table = Table("outer step", "rate", "momentum", "held-out loss", "d loss / d log rate")
    for i in track(range(args.steps), "hypergradients", console=console):
        rate, momentum = float(jnp.exp(free["rate"])), float(jax.nn.sigmoid(free["momentum"]))
        free, state, loss, grads = outer_step(free, state)
        rows.append((rate, momentum, float(loss), float(grads["rate"])))
        if i % max(1, args.steps // 6) == 0 or i == args.steps - 1:
            table.add_row(str(i), f"{rate:.4f}", f"{momentum:.3f}", f"{rows[-1][2]:.4f}", f"{rows[-1][3]:+.4f}")
    console.print(table)

    # A difference quotient says whether the gradient is right.
    h = 1e-2
    above, below = (value_of(optimizer({**start, "rate": start["rate"] + x})) for x in (h, -h))
    quotient = float(above - below) / (2 * h)
    console.print(f"At the start, by differences: {quotient:+.4f}")
    return {"rows": np.asarray(rows), "quotient": quotient, "gradient": gradient}


if __name__ == "__main__":
    main()
