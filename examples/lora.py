# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning on few images: the head alone, then all with groups; low-rank adapters (LoRA); everything at once.

A network learns the digits of digits.py and is then tuned for digits that lie on their side, of which it gets 200. The
table has how many numbers are trained, what the optimizer keeps for them, and the accuracy on digits on their side and,
to see what is forgotten, upright ones. LoRA leaves the weights alone: without the adapters it is the old network.

    python examples/lora.py
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

SIZES = (64, 128, 128, 10)
HEAD = f"layer{len(SIZES) - 2}/*"
BATCH, RANK = 64, 4


def on_its_side(images: jax.Array) -> jax.Array:
    return jnp.rot90(images.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)


def init_adapters(weights: dict[str, Any]) -> dict[str, Any]:
    """For each matrix a product of two narrow ones, which is 0 at first."""
    adapters = {}
    for i, (name, layer) in enumerate(weights.items()):
        inputs, outputs = layer["w"].shape
        a = jax.random.normal(jax.random.key(i), (inputs, RANK)) * inputs**-0.5
        adapters[name] = {"a": a, "b": jnp.zeros((RANK, outputs))}
    return adapters


def adapted(adapters: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"w": layer["w"] + adapters[name]["a"] @ adapters[name]["b"], "b": layer["b"]}
        for name, layer in weights.items()
    }


def whole(weights: dict[str, Any], _: Any) -> dict[str, Any]:
    return weights


class Trainer:
    """Steps on batches of some images, of parameters from which, with those that are given, `model` makes weights."""

    def __init__(self, data: Data, model: Any = whole, weights: Any = None):
        self.data, self.model, self.weights = data, model, weights
        self._step = jax.jit(self._one)

    def _one(self, tx: Any, params: Any, state: Any, i: jax.Array) -> tuple:
        batch = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (BATCH,), 0, len(self.data.images))
        images, labels = self.data.images[batch], self.data.labels[batch]
        grads = jax.grad(lambda params: cross_entropy(self.model(params, self.weights), images, labels))(params)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    def run(self, tx: Any, params: Any, steps: int, name: str, console: Console, state: Any = None) -> tuple:
        state = tx.init(params) if state is None else state
        for i in track(range(steps), name, console=console):
            params, state = self._step(tx, params, state, jnp.int32(i))
        return params, state


def fine_tune(weights: Any, side: Data, steps: int, console: Console) -> dict[str, tuple]:
    """By name: the weights on the new data, those for the old, how many numbers are trained, and the state."""
    trainer, adam = Trainer(side), gradtx.adamw(1e-3, weight_decay=0.0)
    results: dict[str, tuple] = {}

    head = gradtx.groups([(HEAD, {}), ("**", "frozen")], adam, first_match=True)
    tuned, state = trainer.run(head, weights, steps, "head", console)
    results["head"] = tuned, tuned, weights[HEAD[:-2]], state

    # The moments of the head go on; those of what is no longer frozen begin, and it learns more slowly.
    halfway, state = trainer.run(head, weights, steps // 2, "head ...", console)
    rest = gradtx.groups([("layer0/*", "frozen"), ("layer1/*", {"learning_rate": gradtx.times(0.3)})], adam)
    state, report = gradtx.migrate(state, rest, halfway, old_tx=head)
    console.print(str(report))
    tuned, state = trainer.run(rest, halfway, steps - steps // 2, "... then more", console, state)
    results["head, then the layer before"] = tuned, tuned, {k: v for k, v in weights.items() if k != "layer0"}, state

    # LoRA+ (2402.12354): b learns faster than a.
    lora = gradtx.groups([("*/b", {"learning_rate": gradtx.times(16.0)})], adam)
    adapters, state = Trainer(side, adapted, weights).run(lora, init_adapters(weights), steps, "LoRA", console)
    results[f"LoRA, rank {RANK}"] = adapted(adapters, weights), weights, adapters, state

    tuned, state = trainer.run(adam, weights, steps, "all", console)
    results["all"] = tuned, tuned, weights, state
    return results


def main(argv: Sequence[str] | None = None) -> dict[str, tuple[int, int, float, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="of each training (default: 400)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data = Console(quiet=args.quiet), load()
    held_out = on_its_side(data.held_out_images)
    side = data._replace(images=on_its_side(data.images[:200]), labels=data.labels[:200], held_out_images=held_out)
    start = init_weights(jax.random.key(0), SIZES)
    weights, _ = Trainer(data).run(gradtx.adamw(1e-3), start, args.steps, "before", console)

    def accuracies(new: Any, old: Any) -> tuple[float, float]:
        labels = data.held_out_labels
        return float(accuracy(new, held_out, labels)), float(accuracy(old, data.held_out_images, labels))

    results = {"before": (0, 0, *accuracies(weights, weights))}
    for name, (new, old, trained, state) in fine_tune(weights, side, args.steps, console).items():
        size = sum(x.size for x in jax.tree.leaves(trained))
        kept = sum(x.nbytes for x in jax.tree.leaves(state))
        results[name] = (size, kept, *accuracies(new, old))
    table = Table("what is trained", "numbers", "bytes of state", "on their side", "upright")
    for name, (size, kept, new, old) in results.items():
        table.add_row(name, f"{size:,}", f"{kept:,}", f"{new:.1%}", f"{old:.1%}")
    console.print(table)
    return results


if __name__ == "__main__":
    main()
