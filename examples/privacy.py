# SPDX-License-Identifier: Apache-2.0
"""Differentially private training on digits: what noise costs in accuracy, and what it buys.

`differentially_private_aggregate` takes the gradients of single examples, clips each and adds noise to their sum; what
follows in the chain is any optimizer, here Adam. Each image is in a batch by a coin of its own, as the bound on privacy
asks for. That is the epsilon of (epsilon, 1e-5)-differential privacy, by Renyi divergences of the sampled Gaussian
mechanism at whole orders (1908.10530): small numbers are strong promises, those above 10 hardly any. With 1,437 images
a strong promise is expensive; more of them would share the same noise.

    python examples/privacy.py
"""

import argparse
import math
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

NOISES = 0.0, 0.5, 1.0, 2.0, 4.0
EXPECTED, ROOM, DELTA = 64, 128, 1e-5  # images in a batch, on average and at most; a batch above 128 is 8 sigmas away


def optimizer(noise: float) -> Any:
    private = gradtx.differentially_private_aggregate(1.0, noise, seed=7)  # a secret, outside of an example
    return gradtx.chain(private, gradtx.adam(0.01))


@jax.jit
def step(tx: Any, weights: Any, state: Any, data: Data, i: jax.Array) -> tuple:
    number = len(data.images)
    coins = jax.random.uniform(jax.random.fold_in(jax.random.key(1), i), (number,)) < EXPECTED / number
    (batch,) = jnp.nonzero(coins, size=ROOM, fill_value=number)
    drawn = (batch < number).astype(jnp.float32)  # what fills the room has gradients of zero

    def loss(weights: Any, image: jax.Array, label: jax.Array, drawn: jax.Array) -> jax.Array:
        return drawn * cross_entropy(weights, image[None], label[None])

    rows = jnp.minimum(batch, number - 1)
    grads = jax.vmap(jax.grad(loss), (None, 0, 0, 0))(weights, data.images[rows], data.labels[rows], drawn)
    updates, state = tx.update(grads, state, weights)
    return gradtx.apply_updates(weights, updates), state


def epsilon(noise: float, share: float, steps: int) -> float:
    """The smallest that follows from one of the orders."""
    if noise == 0:
        return math.inf
    bounds = []
    for order in range(2, 129):
        k = np.arange(order + 1)
        log_binomial = [math.lgamma(order + 1) - math.lgamma(i + 1) - math.lgamma(order - i + 1) for i in k]
        terms = log_binomial + (order - k) * math.log1p(-share) + k * math.log(share) + k * (k - 1) / (2 * noise**2)
        divergence = np.logaddexp.reduce(terms) / (order - 1)
        bounds.append(steps * divergence + math.log(1 / DELTA) / (order - 1))
    return min(bounds)


def main(argv: Sequence[str] | None = None) -> dict[float, tuple[float, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of each training (default: 300)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data, results = Console(quiet=args.quiet), load(), {}
    table = Table("noise", "epsilon", "held-out accuracy")
    for noise in NOISES:
        tx, weights = optimizer(noise), init_weights(jax.random.key(0), (64, 32, 10))
        state = tx.init(weights)
        for i in track(range(args.steps), f"noise {noise}", console=console):
            weights, state = step(tx, weights, state, data, jnp.int32(i))
        right = float(accuracy(weights, data.held_out_images, data.held_out_labels))
        results[noise] = epsilon(noise, EXPECTED / len(data.images), args.steps), right
        table.add_row(f"{noise:g}", f"{results[noise][0]:.2f}", f"{right:.1%}")
    console.print(table)
    return results


if __name__ == "__main__":
    main()
