# SPDX-License-Identifier: Apache-2.0
"""Averages of the parameters, and Schedule-Free, beside a cosine schedule: the held-out loss along the way.

A schedule lowers the rate so that the end is smooth, and has to know when that is. Averages of what a constant rate
walks through are smooth at any time: a moving average (`params_ema`), the mean of the last snapshots (`lawa`), and
Schedule-Free, which takes gradients between its average and its fast iterate. Each is a stage or an optimizer;
`eval_params` gives what to evaluate. All have one rate, for which nothing was tuned, so that the order in the table is
that of this rate and this length. The data are those of digits.py, in small batches.

    python examples/averages.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from digits import Data, cross_entropy, init_weights, load
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gradtx
from gradtx.plot import plot_curves

SIZES, BATCH, RATE, SEEDS = (64, 64, 64, 10), 16, 3e-3, 3
MEASUREMENTS = 20


def optimizers(steps: int) -> dict[str, Any]:
    constant = gradtx.adam(RATE)
    return {
        "constant": constant,
        "params_ema": gradtx.chain(constant, gradtx.params_ema(0.99, warmup=True)),
        "lawa": gradtx.chain(constant, gradtx.lawa(5, every=20)),
        "Schedule-Free": gradtx.schedule_free_adamw(RATE),
        "cosine": gradtx.adam(gradtx.cosine_decay_schedule(RATE, steps)),
    }


def step(tx: Any, weights: Any, state: Any, data: Data, i: jax.Array, seed: jax.Array) -> tuple:
    key = jax.random.fold_in(jax.random.key(seed), i)
    batch = jax.random.randint(key, (BATCH,), 0, len(data.images))
    grads = jax.grad(cross_entropy)(weights, data.images[batch], data.labels[batch])
    updates, state = tx.update(grads, state, weights)
    return gradtx.apply_updates(weights, updates), state


def held_out_loss(state: Any, weights: Any, data: Data) -> jax.Array:
    return cross_entropy(gradtx.eval_params(state, weights), data.held_out_images, data.held_out_labels)


# Over seeds, which give each run its start and its batches.
steps_of_seeds = jax.jit(jax.vmap(step, in_axes=(None, 0, 0, None, None, 0)))
losses_of_seeds = jax.jit(jax.vmap(held_out_loss, in_axes=(0, 0, None)))


def main(argv: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help=f"a multiple of {MEASUREMENTS} (default: 600)")
    parser.add_argument("--out", default="averages.png", help="the picture (default: averages.png)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data, results = Console(quiet=args.quiet), load(), {}
    seeds, every = jnp.arange(SEEDS, dtype=jnp.uint32), max(1, args.steps // MEASUREMENTS)
    for name, tx in optimizers(args.steps).items():
        weights = jax.vmap(lambda seed: init_weights(jax.random.key(seed), SIZES))(seeds)
        state, losses = jax.vmap(tx.init)(weights), []
        for i in track(range(args.steps), name, console=console):
            weights, state = steps_of_seeds(tx, weights, state, data, jnp.int32(i), seeds)
            if (i + 1) % every == 0:
                losses.append(losses_of_seeds(state, weights, data))
        results[name] = np.stack(losses, axis=1)
    quarters = [len(losses) * n // 4 - 1 for n in (1, 2, 3, 4)]
    steps = (f"step {(i + 1) * every}" for i in quarters)
    table = Table("held-out loss, mean of seeds", *steps)
    for name, values in results.items():
        table.add_row(name, *(f"{values[:, i].mean():.3f}" for i in quarters))
    console.print(table)
    relative = {name: values / results["constant"].mean(axis=0) for name, values in results.items()}
    panels = {"Held-out loss": results, "Relative to the constant rate": relative}
    plot_curves(panels, xlabel=f"steps / {every}", log=("Held-out loss",)).savefig(args.out)
    console.print(f"Picture: {args.out}")
    return results


if __name__ == "__main__":
    main()
