# SPDX-License-Identifier: Apache-2.0
"""Sharpness-aware minimization (SAM) where a fifth of the labels is wrong: how sharp its minima are, and how good.

SAM descends with the gradient at a point of higher loss nearby, so that it costs two gradients a step; it is compared
with momentum for as many gradients and for as many steps. The table has the loss on the training data (with their wrong
labels), the largest curvature of it, and the accuracy on held-out data, of which no label is wrong.

    python examples/sharp_minima.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from digits import Data, accuracy, cross_entropy, init_weights, load
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gradtx

SIZES, BATCH, WRONG = (64, 128, 128, 10), 128, 0.2


def runs(steps: int, rho: float) -> dict[str, tuple[Any, int]]:
    """By name: the optimizer, and how many gradients it gets."""
    momentum = gradtx.sgd(0.05, momentum=0.9)
    sam = gradtx.sam(momentum, gradtx.chain(gradtx.normalize(), gradtx.sgd(rho)))
    return {
        "momentum": (momentum, steps),
        "SAM, as many gradients": (sam, steps),
        "SAM, as many steps": (sam, 2 * steps),
    }


@jax.jit
def step(tx: Any, weights: Any, state: Any, data: Data, i: jax.Array) -> tuple:
    batch = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (BATCH,), 0, len(data.images))
    grads = jax.grad(cross_entropy)(weights, data.images[batch], data.labels[batch])
    updates, state = tx.update(grads, state, weights)
    return gradtx.apply_updates(weights, updates), state


@jax.jit
def largest_curvature(weights: Any, data: Data) -> jax.Array:
    """The largest eigenvalue of the Hessian, by 50 products of it with a vector."""

    def product(v: Any) -> Any:
        grad = jax.grad(lambda weights: cross_entropy(weights, data.images, data.labels))
        return jax.jvp(grad, (weights,), (v,))[1]

    def next_vector(v: Any, _: None) -> tuple[Any, jax.Array]:
        hv = product(v)
        norm = gradtx.global_norm(hv)
        return jax.tree.map(lambda x: x / norm, hv), norm

    start = jax.tree.map(jnp.ones_like, weights)
    return jax.lax.scan(next_vector, start, length=50)[1][-1]


def with_wrong_labels(data: Data) -> Data:
    rng = np.random.default_rng(0)
    wrong = rng.uniform(size=len(data.labels)) < WRONG
    others = (np.asarray(data.labels) + rng.integers(1, 10, size=len(data.labels))) % 10
    return data._replace(labels=jnp.where(jnp.asarray(wrong), jnp.asarray(others, jnp.int32), data.labels))


def main(argv: Sequence[str] | None = None) -> dict[str, tuple[float, float, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of momentum (default: 600)")
    parser.add_argument("--rho", type=float, default=0.1, help="how far nearby is (default: 0.1)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data, results = Console(quiet=args.quiet), with_wrong_labels(load()), {}
    table = Table("optimizer", "training loss", "largest curvature", "held-out accuracy")
    for name, (tx, gradients) in runs(args.steps, args.rho).items():
        weights = init_weights(jax.random.key(0), SIZES)
        state = tx.init(weights)
        for i in track(range(gradients), name, console=console):
            weights, state = step(tx, weights, state, data, jnp.int32(i))
        numbers = (
            cross_entropy(weights, data.images, data.labels),
            largest_curvature(weights, data),
            accuracy(weights, data.held_out_images, data.held_out_labels),
        )
        results[name] = tuple(map(float, numbers))
        table.add_row(name, f"{results[name][0]:.3f}", f"{results[name][1]:.1f}", f"{results[name][2]:.1%}")
    console.print(table)
    return results


if __name__ == "__main__":
    main()
