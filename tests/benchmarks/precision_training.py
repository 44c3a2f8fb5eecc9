# SPDX-License-Identifier: Apache-2.0
"""What few bits cost in loss: AdamW with its numbers stored in several ways, trained side by side over several seeds.

Three networks: the four hidden layers of examples/digits.py, a transformer and an LSTM of characters. The text is the
language reference that comes with Python (`help("topics")`), so nothing is downloaded. Each optimizer gets the same
starts and the same batches, and a learning rate that decays to zero; what is compared is the loss after the last step,
of a fixed part of what was trained on, and of data that were held out.

A run of float32 whose starts differ by one part in a million shows how far apart two runs end that differ by nothing
but rounding: a smaller difference says nothing.

    python tests/benchmarks/precision_training.py                       # all of it, the table of docs/precision.md
    python tests/benchmarks/precision_training.py --problem digits      # or a part
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx import (
    adamw,
    adamw8bit,
    adamw_bf16,
    add_decayed_weights,
    apply_updates,
    chain,
    scale_by_adam,
    scale_by_lr,
    stored,
    warmup_cosine_decay_schedule,
)
from gradtx.precision import companded8, int4

Params = Any
Batch = tuple[jax.Array, jax.Array]
"""What goes in, and the classes that should come out."""


class Problem(NamedTuple):
    """A network to train: its start from a random key, its loss, and the data."""

    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Batch], jax.Array]
    sample: Callable[[jax.Array], Batch]
    trained: Batch
    held_out: Batch
    steps: int
    learning_rate: float


class Losses(NamedTuple):
    """After the last step, a number for each seed."""

    trained: np.ndarray
    held_out: np.ndarray


class Candidate(NamedTuple):
    """An optimizer, made from its learning rate, the parameters' dtype, and by how much the starts are off."""

    make: Callable[[Any], Any]
    dtype: Any = jnp.float32
    jitter: float = 0.0


REFERENCE, PERTURBED, PLAIN = "float32", "float32, starts off by 1e-6", "bfloat16 weights, rounded to the nearest"
LOW = "8-bit moments", "companded 8-bit moments", "bfloat16 weights, error bits, 8-bit moments"
"""Those that should cost nothing."""


def candidates(b2: float = 0.999, weight_decay: float = 1e-2) -> dict[str, Candidate]:
    """AdamW, stored in several ways. The networks are small: nothing would be stored without `min_size=0`."""
    options: dict[str, Any] = {"b2": b2, "weight_decay": weight_decay}

    def moments_in(codec: Callable, **options: Any) -> Callable[[Any], Any]:
        policy = {"mu": codec(), "nu": codec(signed=False, **options)}
        moments = stored(scale_by_adam(b2=b2), policy, min_size=0)
        return lambda rate: chain(moments, add_decayed_weights(weight_decay), scale_by_lr(rate))

    return {
        REFERENCE: Candidate(lambda rate: adamw(rate, **options)),
        PERTURBED: Candidate(lambda rate: adamw(rate, **options), jitter=1e-6),
        LOW[0]: Candidate(lambda rate: adamw8bit(rate, **options, min_size=0)),
        LOW[1]: Candidate(moments_in(companded8, stochastic=True)),
        LOW[2]: Candidate(lambda rate: adamw_bf16(rate, **options, min_size=0), jnp.bfloat16),
        "4-bit moments": Candidate(moments_in(int4)),
        PLAIN: Candidate(lambda rate: adamw(rate, **options), jnp.bfloat16),
    }


def train(problem: Problem, candidate: Candidate, seeds: int) -> Losses:
    """Trains one network a seed, in one compiled program."""
    steps = problem.steps
    tx = candidate.make(warmup_cosine_decay_schedule(0.0, problem.learning_rate, steps // 10, steps))

    def run(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        start, noise, batches = jax.random.split(jax.random.key(seed), 3)
        params = jitter(problem.init(start), noise, candidate.jitter)
        params = jax.tree.map(lambda p: p.astype(candidate.dtype), params)

        def step(carry: tuple, i: jax.Array) -> tuple:
            params, state = carry
            grads = jax.grad(problem.loss)(params, problem.sample(jax.random.fold_in(batches, i)))
            updates, state = tx.update(grads, state, params)
            return (apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))
        return problem.loss(params, problem.trained), problem.loss(params, problem.held_out)

    return Losses(*jax.device_get(jax.jit(lambda: jax.lax.map(run, jnp.arange(seeds)))()))


def jitter(params: Params, key: jax.Array, size: float) -> Params:
    """The parameters, each off by about one part in 1 / size."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    rows = zip(leaves, keys, strict=True)
    return treedef.unflatten([p * (1 + size * jax.random.normal(k, p.shape)) for p, k in rows])


# The networks. Parameters may be of bfloat16; everything is computed in float32.


def dense(key: jax.Array, *shape: int, scale: float = 1.0) -> jax.Array:
    """Weights of the size that keeps the size of what passes through them."""
    return jax.random.normal(key, shape) * (scale * shape[0] ** -0.5)


def cross_entropy(logits: jax.Array, classes: jax.Array, smoothing: float = 0.0) -> jax.Array:
    # By products and not by places, whose derivatives are slow on CPUs. So are the embeddings below.
    count = logits.shape[-1]
    targets = (1 - smoothing) * jax.nn.one_hot(classes, count) + smoothing / count
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * targets, -1))


def widened(loss: Callable) -> Callable:
    return lambda params, batch: loss(jax.tree.map(lambda p: p.astype(jnp.float32), params), batch)


SMOOTHING = 0.1


def digits(steps: int = 1100, batch_size: int = 128) -> Problem:
    """The network of examples/digits.py: 64 pixels, four hidden layers of 20 neurons, 10 digits.

    Its targets are smoothed. It learns all images by heart, and the ratio of two losses near zero would say nothing.
    """
    example = digits_example()
    data = example.load()

    def sample(key: jax.Array) -> Batch:
        chosen = jax.random.randint(key, (batch_size,), 0, len(data.images))
        return data.images[chosen], data.labels[chosen]

    return Problem(
        lambda key: example.init_weights(key, [64, 20, 20, 20, 20, 10]),
        widened(lambda weights, batch: cross_entropy(example.logits(weights, batch[0]), batch[1], SMOOTHING)),
        sample,
        (data.images, data.labels),
        (data.held_out_images, data.held_out_labels),
        steps,
        3e-3,
    )


def digits_example() -> Any:
    folder = str(Path(__file__).resolve().parents[2] / "examples")
    sys.path.insert(0, folder)
    try:
        import digits  # pyright: ignore[reportMissingImports]  # an example, not part of a package
    finally:
        sys.path.remove(folder)
    return digits


CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))


@functools.cache
def text() -> np.ndarray:
    """Python's language reference as numbers of characters; what is not ASCII is left out."""
    numbers = {c: i for i, c in enumerate(CHARACTERS)}
    pages = "\n".join(topics[name] for name in sorted(topics))
    return np.asarray([numbers[c] for c in pages if c in numbers], np.int32)


def language_model(
    init: Callable, logits: Callable, rate: float, *, steps: int, batch_size: int, length: int, windows: int = 64
) -> Problem:
    """Predicts each character from those before it. The last tenth of the text is held out."""
    end = len(text()) * 9 // 10
    start, held_out = jnp.asarray(text()[:end]), jnp.asarray(text()[end:])

    def cut(numbers: jax.Array, begins: jax.Array) -> Batch:
        chosen = numbers[begins[:, None] + jnp.arange(length + 1)[None]]
        return chosen[:, :-1], chosen[:, 1:]

    def spread(numbers: jax.Array) -> Batch:
        return cut(numbers, jnp.asarray(np.linspace(0, len(numbers) - length - 1, windows), jnp.int32))

    return Problem(
        init,
        widened(lambda params, batch: cross_entropy(logits(params, batch[0]), batch[1])),
        lambda key: cut(start, jax.random.randint(key, (batch_size,), 0, len(start) - length)),
        spread(start),
        spread(held_out),
        steps,
        rate,
    )


def transformer(
    steps: int = 300, batch_size: int = 8, length: int = 64, width: int = 64, layers: int = 2, heads: int = 4
) -> Problem:
    """Norms before attention and before the two dense layers, learned positions."""

    def init(key: jax.Array) -> Params:
        keys = iter(jax.random.split(key, 3 + 4 * layers))
        out = (2 * layers) ** -0.5
        blocks = [
            {
                "norms": jnp.ones((2, width)),
                "qkv": dense(next(keys), width, 3 * width),
                "out": dense(next(keys), width, width, scale=out),
                "up": dense(next(keys), width, 4 * width),
                "down": dense(next(keys), 4 * width, width, scale=out),
            }
            for _ in range(layers)
        ]
        return {
            "embed": 0.1 * jax.random.normal(next(keys), (len(CHARACTERS), width)),
            "positions": 0.1 * jax.random.normal(next(keys), (length, width)),
            "blocks": blocks,
            "norm": jnp.ones(width),
            "head": dense(next(keys), width, len(CHARACTERS)),
        }

    def norm(x: jax.Array, scale: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale[None, None]

    def attention(x: jax.Array, qkv: jax.Array) -> jax.Array:
        size = (*x.shape[:2], heads, width // heads)
        q, k, v = (part.reshape(size) for part in jnp.split(x @ qkv, 3, -1))
        return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)

    def logits(params: Params, tokens: jax.Array) -> jax.Array:
        x = jax.nn.one_hot(tokens, len(CHARACTERS)) @ params["embed"] + params["positions"][None]
        for block in params["blocks"]:
            x = x + attention(norm(x, block["norms"][0]), block["qkv"]) @ block["out"]
            x = x + jax.nn.gelu(norm(x, block["norms"][1]) @ block["up"]) @ block["down"]
        return norm(x, params["norm"]) @ params["head"]

    return language_model(init, logits, 3e-3, steps=steps, batch_size=batch_size, length=length)


def lstm(steps: int = 300, batch_size: int = 16, length: int = 32, width: int = 64, layers: int = 2) -> Problem:
    """Layers of Hochreiter and Schmidhuber's cells, the gates of forgetting open at the start."""

    def init(key: jax.Array) -> Params:
        keys = iter(jax.random.split(key, 2 + layers))
        cells = [
            {"w": dense(next(keys), 2 * width, 4 * width), "b": jnp.zeros(4 * width).at[width : 2 * width].set(1)}
            for _ in range(layers)
        ]
        return {
            "embed": jax.random.normal(next(keys), (len(CHARACTERS), width)),
            "cells": cells,
            "head": dense(next(keys), width, len(CHARACTERS)),
        }

    def layer(cell: Params, xs: jax.Array) -> jax.Array:
        from_below = xs @ cell["w"][:width] + cell["b"][None, None]

        def step(carry: tuple, x: jax.Array) -> tuple:
            h, c = carry
            i, f, g, o = jnp.split(x + h @ cell["w"][width:], 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        start = jnp.zeros((xs.shape[1], width))
        return jax.lax.scan(step, (start, start), from_below)[1]

    def logits(params: Params, tokens: jax.Array) -> jax.Array:
        xs = jax.nn.one_hot(tokens.T, len(CHARACTERS)) @ params["embed"]
        for cell in params["cells"]:
            xs = layer(cell, xs)
        return jnp.swapaxes(xs, 0, 1) @ params["head"]

    return language_model(init, logits, 1e-2, steps=steps, batch_size=batch_size, length=length)


PROBLEMS = {"digits": digits, "transformer": transformer, "lstm": lstm}


def deviations(losses: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """In percent: of the mean of the losses, and of the seed that is farthest off."""
    each = 100 * (losses / reference - 1)
    return 100 * (float(losses.mean() / reference.mean()) - 1), float(each[np.argmax(np.abs(each))])


def row(name: str, losses: Losses, reference: Losses) -> str:
    cells = [name]
    for loss, of in zip(losses, reference, strict=True):
        mean, farthest = deviations(loss, of)
        cells += [f"{loss.mean():.4f}", f"{mean:+.2f} %", f"{farthest:+.2f} %"]
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=("all", *PROBLEMS), default="all")
    parser.add_argument("--seeds", type=int, default=5, help="how many runs of each optimizer (default: 5)")
    parser.add_argument("--steps", type=int, help="updates of each run (default: as the problem says)")
    parser.add_argument("--learning-rate", type=float, help="the largest one (default: as the problem says)")
    parser.add_argument("--b2", type=float, default=0.999, help="of the second moment (default: 0.999)")
    args = parser.parse_args(argv)
    for title in PROBLEMS if args.problem == "all" else (args.problem,):
        problem = PROBLEMS[title](**({"steps": args.steps} if args.steps else {}))
        problem = problem._replace(learning_rate=args.learning_rate or problem.learning_rate)
        rates = f"learning rate {problem.learning_rate:g}, b2 {args.b2:g}"
        print(f"\n{title}: {problem.steps:,} updates, {rates}, {args.seeds} seeds\n")
        print("| | loss | to float32 | farthest seed | held-out loss | to float32 | farthest seed |")
        print("|---|---|---|---|---|---|---|")
        reference = None
        for name, candidate in candidates(args.b2).items():
            losses = train(problem, candidate, args.seeds)
            reference = reference or losses
            print(row(name, losses, reference), flush=True)


if __name__ == "__main__":
    main()
