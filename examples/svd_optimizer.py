# SPDX-License-Identifier: Apache-2.0
"""An optimizer of your own with a singular value decomposition, by `per_matrix`.

The rule: average the gradients of a matrix, G = U S V', and make the step U h(S) V' with h(s) = s^power. A power of 0
makes all singular values 1, as Muon does by an iteration; 1 keeps their proportions; in between, large ones stay
larger. The rule sees one matrix. Where the matrices are is what roles say: here the hidden layers are stacked in one
array with three axes, and what is no matrix has Adam. The data are those of digits.py.

    python examples/svd_optimizer.py
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from digits import Data, load
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gradtx

WIDTH, LAYERS, BATCH = 32, 4, 64
POWERS, RATES = (0.0, 0.25, 0.5, 1.0), (0.003, 0.01, 0.03, 0.1)
ROLES = [
    ("hidden", gradtx.Role("hidden", stack=0, in_axes=1, out_axes=2)),
    ("biases", gradtx.Role("bias", stack=0)),
    ("into", gradtx.Role("embedding")),
    ("head", gradtx.Role("head")),
]


class ScaleBySpectrumState(NamedTuple):
    mu: Any


@gradtx.transformation
def scale_by_spectrum(power: gradtx.typing.NonNegative = 0.5, decay: gradtx.typing.Decay = 0.9):
    """u = U h(S) V', with singular values h(s) = s^power of root mean square 1."""

    def init(p):
        return jnp.zeros_like(p)

    def update(g, mu, p, t):
        mu = decay * mu + (1 - decay) * g
        u, s, v = jnp.linalg.svd(mu, full_matrices=False)
        h = jnp.where(s > 0, (s / jnp.maximum(s[0], 1e-30)) ** power, 0.0)
        size = jnp.maximum(jnp.sqrt(jnp.mean(h * h)), 1e-30)
        return (u * (h / size)[None, :]) @ v, mu

    return gradtx.per_matrix(init, update, ScaleBySpectrumState)


def spectrum(learning_rate: Any, power: Any) -> Any:
    matrices = gradtx.chain(scale_by_spectrum(power), gradtx.scale_by_lr(learning_rate))
    return gradtx.with_roles(ROLES, gradtx.groups([(gradtx.of_kind("hidden"), matrices)], gradtx.adam(3e-3)))


def init_weights(key: jax.Array) -> dict[str, jax.Array]:
    keys = jax.random.split(key)
    return {
        "into": jax.random.normal(keys[0], (64, WIDTH)) * (2 / 64) ** 0.5,
        "hidden": jax.random.normal(keys[1], (LAYERS, WIDTH, WIDTH)) * (2 / WIDTH) ** 0.5,
        "biases": jnp.zeros((LAYERS, WIDTH)),
        "head": jnp.zeros((WIDTH, 10)),
    }


def loss(weights: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    def layer(x: jax.Array, of_layer: tuple) -> tuple[jax.Array, None]:
        return jax.nn.relu(x @ of_layer[0] + of_layer[1][None]), None

    x, _ = jax.lax.scan(layer, jax.nn.relu(images @ weights["into"]), (weights["hidden"], weights["biases"]))
    return jnp.mean(gradtx.losses.softmax_cross_entropy_with_integer_labels(x @ weights["head"], labels))


@jax.jit
def step(tx: Any, weights: Any, state: Any, data: Data, i: jax.Array) -> tuple:
    batch = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (BATCH,), 0, len(data.images))
    grads = jax.grad(loss)(weights, data.images[batch], data.labels[batch])
    updates, state = tx.update(grads, state, weights)
    return gradtx.apply_updates(weights, updates), state


def main(argv: Sequence[str] | None = None) -> dict[float, list[float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of each training (default: 200)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data, results = Console(quiet=args.quiet), load(), {}
    table = Table("power", *(f"rate {rate:g}" for rate in RATES), title="Held-out loss")
    for power in track(POWERS, "powers", console=console):
        results[power] = []
        for rate in RATES:  # powers and rates are numbers of one program
            tx, weights = spectrum(rate, power), init_weights(jax.random.key(0))
            state = tx.init(weights)
            for i in range(args.steps):
                weights, state = step(tx, weights, state, data, jnp.int32(i))
            results[power].append(float(loss(weights, data.held_out_images, data.held_out_labels)))
        table.add_row(f"{power:g}", *(f"{x:.3f}" for x in results[power]))
    console.print(table)
    return results


if __name__ == "__main__":
    main()
