# SPDX-License-Identifier: Apache-2.0
"""Four optimizers on handwritten digits, side by side: plain descent, momentum, RMSProp, Adam.

The data are scikit-learn's 1,797 images of 8 x 8 pixels, 80 % to train and 20 % held out. First a softmax regression
by full-batch gradient descent, then a network with four hidden layers of 20 neurons. Every optimizer gets the same
starts and the same order of the data, and the usual rate of textbooks: 0.01 for plain descent and momentum, 0.001 for
RMSProp and Adam.

The rates are not tuned, and 100 epochs of so few images are only 1,100 updates: Adam's lead is one of speed. With more
updates (`--batch-size 32`) or ten times the rate (`--rate-factor 10`) plain descent catches up.

    python examples/digits.py
    python examples/digits.py --batch-size all     # the other data regimes: batch
    python examples/digits.py --batch-size 1       # and stochastic
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from gradtx import apply_updates, chain, scale_by_adam, scale_by_lr, scale_by_rms, trace
from gradtx.plot import plot_curves

Weights = dict[str, dict[str, jax.Array]]


class Data(NamedTuple):
    images: jax.Array
    labels: jax.Array
    held_out_images: jax.Array
    held_out_labels: jax.Array


class Curves(NamedTuple):
    """After each epoch, a row for each seed: the mean loss of its batches, loss and accuracy on held-out data."""

    loss: np.ndarray
    held_out_loss: np.ndarray
    accuracy: np.ndarray


class Result(NamedTuple):
    """What the training of all seeds gave, and how long it took, compiling left out."""

    curves: Curves
    seconds: float

    @property
    def accuracy(self) -> np.ndarray:
        """The final held-out accuracy of each seed."""
        return self.curves.accuracy[:, -1]

    @property
    def held_out_loss(self) -> np.ndarray:
        return self.curves.held_out_loss[:, -1]


def optimizers(factor: float = 1.0) -> dict[str, Any]:
    """Chained from parts; each has a recipe of its own as well: `sgd`, `rmsprop`, `adam`."""
    return {
        "plain descent": chain(scale_by_lr(0.01 * factor)),
        "momentum": chain(trace(0.9), scale_by_lr(0.01 * factor)),
        "RMSProp": chain(scale_by_rms(0.9), scale_by_lr(0.001 * factor)),
        "Adam": chain(scale_by_adam(), scale_by_lr(0.001 * factor)),
    }


def load() -> Data:
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.2, stratify=labels, random_state=0)
    images, held_out_images, labels, held_out_labels = parts
    floats, integers = jnp.float32, jnp.int32
    return Data(
        jnp.asarray(images, floats),
        jnp.asarray(labels, integers),
        jnp.asarray(held_out_images, floats),
        jnp.asarray(held_out_labels, integers),
    )


def init_weights(key: jax.Array, sizes: Sequence[int]) -> Weights:
    """He's normal weights, which keep the size of what passes through ReLU layers; zero biases."""
    layers = {}
    for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        w = jax.random.normal(jax.random.fold_in(key, i), (fan_in, fan_out)) * (2 / fan_in) ** 0.5
        layers[f"layer{i}"] = {"w": w, "b": jnp.zeros(fan_out)}
    return layers


def logits(weights: Weights, images: jax.Array) -> jax.Array:
    x = images
    for i, layer in enumerate(weights.values()):
        x = (jax.nn.relu(x) if i else x) @ layer["w"] + layer["b"][None]
    return x


def cross_entropy(weights: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(logits(weights, images))
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=1))


def accuracy(weights: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.argmax(logits(weights, images), axis=1) == labels)


def epoch(tx: Any, weights: Weights, state: Any, key: jax.Array, i: Any, data: Data, batch_size: int) -> tuple:
    """One pass over the data in random order, in one compiled loop. An incomplete last batch is left out."""
    batches = len(data.images) // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, i), len(data.images))
    order = order[: batches * batch_size].reshape(batches, batch_size)

    def step(carry: tuple, batch: jax.Array) -> tuple:
        weights, state = carry
        loss, grads = jax.value_and_grad(cross_entropy)(weights, data.images[batch], data.labels[batch])
        updates, state = tx.update(grads, state, weights)
        return (apply_updates(weights, updates), state), loss

    (weights, state), losses = jax.lax.scan(step, (weights, state), order)
    held_out = data.held_out_images, data.held_out_labels
    metrics = jnp.mean(losses), cross_entropy(weights, *held_out), accuracy(weights, *held_out)
    return weights, state, metrics


# The transformation is an ordinary argument: its rates are traced numbers, so new ones do not compile again.
# Over keys, weights and states it is mapped: the seeds are trained together, as a population.
population_epoch = jax.jit(jax.vmap(epoch, in_axes=(None, 0, 0, 0, None, None, None)), static_argnums=6)


def train(
    tx: Any, sizes: Sequence[int], data: Data, *, epochs: int, batch_size: int, seeds: int, report: Callable
) -> Result:
    """Trains one network a seed and calls `report(accuracy)` after each epoch."""
    starts, orders = jnp.stack([jax.random.split(jax.random.key(seed)) for seed in range(seeds)], axis=1)
    weights = jax.vmap(lambda key: init_weights(key, sizes))(starts)
    state = jax.vmap(tx.init)(weights)
    jax.block_until_ready(population_epoch(tx, weights, state, orders, 0, data, batch_size))  # compiles
    rows = []
    began = time.perf_counter()
    for i in range(epochs):
        weights, state, metrics = population_epoch(tx, weights, state, orders, i, data, batch_size)
        rows.append(jax.device_get(metrics))
        report(float(rows[-1][2].mean()))
    return Result(Curves(*np.stack(rows, axis=-1)), time.perf_counter() - began)


def softmax_regression(data: Data, epochs: int, console: Console) -> Result:
    """No hidden layer, all images in every step: plain gradient descent in its simplest form."""
    table = Table("epoch", "held-out accuracy")
    seen: list[float] = []

    def report(value: float) -> None:
        seen.append(value)
        if len(seen) in (1, 2, 5, 10, 20, 30, 40, 50) or len(seen) == epochs:
            table.add_row(str(len(seen)), f"{value:.1%}")

    size = len(data.images)
    console.print(f"Softmax regression by gradient descent, all {size:,} images in every step, rate 0.5")
    tx = chain(scale_by_lr(0.5))
    result = train(tx, [64, 10], data, epochs=epochs, batch_size=size, seeds=1, report=report)
    console.print(table)
    return result


def networks(data: Data, args: argparse.Namespace, console: Console) -> dict[str, Result]:
    """The four optimizers on the network, with a progress bar each."""
    size = len(data.images) if args.batch_size == "all" else int(args.batch_size)
    updates = args.epochs * (len(data.images) // size)
    console.print(
        f"\nFour hidden layers of 20 neurons, {args.seeds} seeds: {args.epochs} epochs in batches of {size}, "
        f"{updates:,} updates"
    )
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("held-out accuracy {task.fields[accuracy]:.1%}"),
    )
    results = {}
    with Progress(*columns, console=console, disable=args.quiet) as progress:
        for name, tx in optimizers(args.rate_factor).items():
            bar = progress.add_task(name, total=args.epochs, accuracy=0.0)
            results[name] = train(
                tx,
                [64, 20, 20, 20, 20, 10],
                data,
                epochs=args.epochs,
                batch_size=size,
                seeds=args.seeds,
                report=lambda value, bar=bar: progress.update(bar, advance=1, accuracy=value),
            )
    return results


def summary(results: dict[str, Result], epochs: int) -> Table:
    table = Table("optimizer", "accuracy", "of each seed", "loss", "seconds", title=f"Held out, after {epochs} epochs")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, result in results.items():
        table.add_row(
            name,
            f"{result.accuracy.mean():.1%}",
            "  ".join(f"{x:.1%}" for x in result.accuracy),
            f"{result.held_out_loss.mean():.3f}",
            f"{result.seconds:.1f}",
        )
    return table


def draw(results: dict[str, Result], out: str) -> None:
    figure = plot_curves(
        {
            "Training loss": {name: result.curves.loss for name, result in results.items()},
            "Held-out accuracy, %": {name: 100 * result.curves.accuracy for name, result in results.items()},
        },
        log=("Training loss",),
    )
    figure.savefig(out)


def main(argv: Sequence[str] | None = None) -> dict[str, Result]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("both", "softmax", "network"), default="both")
    parser.add_argument("--epochs", type=int, default=100, help="of the network (default: 100)")
    parser.add_argument("--batch-size", default="128", help="images in a step, or `all` (default: 128)")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs of each optimizer (default: 3)")
    parser.add_argument("--rate-factor", type=float, default=1.0, help="multiplies all four rates (default: 1)")
    parser.add_argument("--out", default="digits.png", help="the picture of the network's curves (default: digits.png)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console = Console(quiet=args.quiet)
    data = load()
    results: dict[str, Result] = {}
    if args.model != "network":
        results["softmax regression"] = softmax_regression(data, min(args.epochs, 50), console)
    if args.model != "softmax":
        network = networks(data, args, console)
        console.print(summary(network, args.epochs))
        margins = 100 * (network["Adam"].accuracy - network["plain descent"].accuracy)
        console.print(
            f"Adam against plain descent: {margins.mean():+.1f} points of accuracy, "
            f"{margins.min():+.1f} with the least favorable seed"
        )
        draw(network, args.out)
        console.print(f"Curves: {args.out}")
        results |= network
    return results


if __name__ == "__main__":
    main()
