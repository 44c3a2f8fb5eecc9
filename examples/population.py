# SPDX-License-Identifier: Apache-2.0
"""32 learning rates at once: a transformation is a tree of its numbers, so one with 32 rates trains 32 networks.

`jax.vmap` runs over the transformation as over any other argument: one compilation and one program for all. The network
and the data are those of digits.py, for plain descent with momentum and for Adam. The picture has the loss for each
rate: what counts is how low a curve gets, and how wide it is there.

    python examples/population.py
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
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

RATES = np.logspace(-4, 1, 32)
BATCH, EVERY = 64, 20
OPTIMIZERS = {"momentum": partial(gradtx.sgd, momentum=0.9), "Adam": gradtx.adam}


def population(optimizer: Any, rates: np.ndarray) -> Any:
    """One transformation whose leaves are arrays, with an entry for each rate."""
    return jax.tree.map(lambda *xs: jnp.asarray(xs, jnp.float32), *(optimizer(float(rate)) for rate in rates))


def advance(tx: Any, weights: Any, state: Any, data: Data, first: Any) -> tuple:
    """`EVERY` steps from step `first`, and the loss on held-out data."""

    def step(carry: tuple, i: jax.Array) -> tuple:
        weights, state = carry
        batch = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (BATCH,), 0, len(data.images))
        grads = jax.grad(cross_entropy)(weights, data.images[batch], data.labels[batch])
        updates, state = tx.update(grads, state, weights)
        return (gradtx.apply_updates(weights, updates), state), None

    steps = first + jnp.arange(EVERY, dtype=jnp.int32)
    (weights, state), _ = jax.lax.scan(step, (weights, state), steps)
    return weights, state, cross_entropy(weights, data.held_out_images, data.held_out_labels)


# Every network sees the same batches; each has its own optimizer, weights and state.
advance_all = jax.jit(jax.vmap(advance, in_axes=(0, 0, 0, None, None)))


def losses_by_rate(name: str, data: Data, steps: int, console: Console) -> tuple[np.ndarray, float]:
    """The losses in the end, one a rate, and how many seconds it took, compiling left out."""
    tx, start = population(OPTIMIZERS[name], RATES), init_weights(jax.random.key(0), (64, 20, 20, 20, 20, 10))
    weights = jax.tree.map(lambda w: jnp.broadcast_to(w, (len(RATES), *w.shape)), start)
    state = jax.vmap(lambda tx, weights: tx.init(weights))(tx, weights)
    losses = jax.block_until_ready(advance_all(tx, weights, state, data, jnp.int32(0)))[2]  # compiles
    began = time.perf_counter()
    for first in track(range(0, steps, EVERY), name, console=console):
        weights, state, losses = jax.block_until_ready(advance_all(tx, weights, state, data, jnp.int32(first)))
    return np.asarray(losses), time.perf_counter() - began


def draw(results: dict[str, np.ndarray], out: str) -> None:
    figure = plot_curves({"Held-out loss": results}, xlabel="learning rate", log=("Held-out loss",), start=0)
    ticks = np.arange(-4, 2)
    places = np.interp(ticks, np.log10(RATES), np.arange(len(RATES)))
    figure.axes[0].set(xticks=places, xticklabels=[f"{10.0**x:g}" for x in ticks])
    figure.savefig(out)


def main(argv: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help=f"of each run, a multiple of {EVERY} (default: 600)")
    parser.add_argument("--out", default="population.png", help="the picture (default: population.png)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data, results = Console(quiet=args.quiet), load(), {}
    table = Table("optimizer", "best rate", "loss", "rates within a factor of 2 of it", "seconds for all")
    for name in OPTIMIZERS:
        losses, seconds = losses_by_rate(name, data, args.steps, console)
        best, good = np.nanargmin(losses), RATES[losses <= 2 * np.nanmin(losses)]
        span = f"{len(good)}, {good.min():.2g} to {good.max():.2g}"
        table.add_row(name, f"{RATES[best]:.2g}", f"{losses[best]:.3f}", span, f"{seconds:.1f}")
        results[name] = losses
    console.print(table)
    draw({name: np.where(np.isfinite(x) & (x < 10), x, np.nan) for name, x in results.items()}, args.out)
    console.print(f"Picture: {args.out}")
    return results


if __name__ == "__main__":
    main()
