# SPDX-License-Identifier: Apache-2.0
"""What an optimizer does during a run: learning rate, norms, clipped and skipped steps, read from its state.

The network and the data are those of digits.py. At step 150 a batch is broken (its gradients are infinite), which the
guard skips.

    python examples/watch.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from digits import Data, cross_entropy, init_weights, load
from rich.console import Console
from rich.table import Table

from gradtx import (
    adamw,
    apply_updates,
    chain,
    clip_by_global_norm,
    guard,
    metrics,
    record_metrics,
    warmup_cosine_decay_schedule,
)
from gradtx.plot import plot_curves

BATCH = 64
BROKEN = 150


def optimizer(steps: int) -> Any:
    rate = warmup_cosine_decay_schedule(0.0, 0.01, steps // 10, steps)
    clip = record_metrics(clip_by_global_norm(1.0), ("grad_norm", "clip_fraction"))
    return guard(chain(clip, record_metrics(adamw(rate, weight_decay=0.01), ("update_norm", "relative_update"))))


def train(tx: Any, data: Data, steps: int) -> dict[str, jax.Array]:
    """The loss and what the stages publish, for each step."""

    def step(carry: tuple, i: jax.Array) -> tuple:
        weights, state, key = carry
        batch = jax.random.randint(jax.random.fold_in(key, i), (BATCH,), 0, len(data.images))
        loss, grads = jax.value_and_grad(cross_entropy)(weights, data.images[batch], data.labels[batch])
        grads = jax.tree.map(lambda g: jnp.where(i == BROKEN, jnp.inf, g), grads)
        updates, state = tx.update(grads, state, weights)
        return (apply_updates(weights, updates), state, key), {"loss": loss, **metrics(state, tx)}

    weights = init_weights(jax.random.key(0), (64, 20, 20, 20, 20, 10))
    carry = weights, tx.init(weights), jax.random.key(1)
    return jax.lax.scan(step, carry, jnp.arange(steps, dtype=jnp.int32))[1]


def table(logged: dict[str, np.ndarray]) -> Table:
    rows = Table("metric", "first", "halfway", "last")
    for name, values in logged.items():
        rows.add_row(name, *(f"{values[i]:.4g}" for i in (0, len(values) // 2, -1)))
    return rows


def curves(logged: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """A panel for each number, without the steps at which it is not finite."""
    panels = {"loss": logged["loss"]}
    for name in ("learning_rate", "grad_norm", "update_norm", "clip_fraction", "skipped"):
        panels[name.replace("_", " ")] = logged[name]
    return {title: {"adamw, clipped and guarded": np.where(np.isfinite(x), x, np.nan)} for title, x in panels.items()}


def main(argv: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", default="watch.png", help="the picture of the curves (default: watch.png)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console = Console(quiet=args.quiet)
    run = jax.jit(train, static_argnums=(0, 2))
    logged = jax.tree.map(np.asarray, run(optimizer(args.steps), load(), args.steps))
    console.print(table(logged))
    plot_curves(curves(logged), xlabel="step", start=0).savefig(args.out)
    console.print(f"Curves: {args.out}")
    return logged


if __name__ == "__main__":
    main()
