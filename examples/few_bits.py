# SPDX-License-Identifier: Apache-2.0
"""Parameters in bfloat16 with error bits, and moments in 8 bits, beside float32: bytes, loss and accuracy.

The rate is small, as late in a run: a bfloat16 has 8 significant bits, so that most steps would be rounded away. The
error bits keep what is lost without a rounding stage. The arithmetic of the network is in float32 for all, so that only
what is stored differs. The data are those of digits.py.

    python examples/few_bits.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from digits import Data, accuracy, cross_entropy, init_weights, load
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gradtx

SIZES, BATCH = (64, 256, 256, 10), 64
RATE, DECAY = 1e-4, 0.01
# By name: the dtype of the parameters, and the optimizer.
KINDS = {
    "float32": (jnp.float32, gradtx.adamw(RATE, weight_decay=DECAY)),
    "float32, 8-bit moments": (jnp.float32, gradtx.adamw8bit(RATE, weight_decay=DECAY, min_size=256)),
    "bfloat16 and nothing else": (jnp.bfloat16, gradtx.adamw(RATE, weight_decay=DECAY)),
    "bfloat16, error bits": (
        jnp.bfloat16,
        gradtx.chain(gradtx.adamw(RATE, weight_decay=DECAY), gradtx.error_bits(8)),
    ),
    "both: adamw_bf16": (jnp.bfloat16, gradtx.adamw_bf16(RATE, weight_decay=DECAY, min_size=256)),
}


def in_float32(weights: Any) -> Any:
    return jax.tree.map(lambda w: w.astype(jnp.float32), weights)


def loss(weights: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    return cross_entropy(in_float32(weights), images, labels)


@jax.jit
def step(tx: Any, weights: Any, state: Any, data: Data, i: jax.Array) -> tuple:
    batch = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (BATCH,), 0, len(data.images))
    grads = jax.grad(loss)(weights, data.images[batch], data.labels[batch])
    updates, state = tx.update(grads, state, weights)
    return gradtx.apply_updates(weights, updates), state


def bytes_each(weights: Any, state: Any) -> float:
    """The bytes of weights and state, for each weight."""
    kept = sum(x.nbytes for x in jax.tree.leaves((weights, state)))
    return kept / sum(w.size for w in jax.tree.leaves(weights))


def main(argv: Sequence[str] | None = None) -> dict[str, tuple[float, float, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of each kind (default: 1000)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data, results = Console(quiet=args.quiet), load(), {}
    start = init_weights(jax.random.key(0), SIZES)
    table = Table("what is stored", "bytes for each parameter", "training loss", "held-out accuracy")
    for name, (dtype, tx) in KINDS.items():
        weights = jax.tree.map(lambda w, dtype=dtype: w.astype(dtype), start)
        state = tx.init(weights)
        for i in track(range(args.steps), name, console=console):
            weights, state = step(tx, weights, state, data, jnp.int32(i))
        final = in_float32(weights)
        numbers = loss(weights, data.images, data.labels), accuracy(final, data.held_out_images, data.held_out_labels)
        results[name] = bytes_each(weights, state), *map(float, numbers)
        table.add_row(name, f"{results[name][0]:.2f}", f"{results[name][1]:.4f}", f"{results[name][2]:.1%}")
    console.print(table)
    return results


if __name__ == "__main__":
    main()
