# SPDX-License-Identifier: Apache-2.0
"""In how many steps Muon and SOAP reach the loss of AdamW, on a small transformer that predicts characters.

The text is the language reference that comes with Python (`help("topics")`), so nothing is downloaded. Losses are those
of 32 windows of its last tenth, which is held out. All get the same learning rates, warm-up, cosine, clipping, weight
decay and b2 and, for each seed, the same start and batches. Numbers are means and, in brackets, ranges over the seeds.

    python examples/sample_efficiency.py
"""

import argparse
from collections.abc import Callable, Sequence
from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

import gradtx
from gradtx.plot import plot_curves

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))  # what else the text has is left out
TEXT = "".join(c for name in sorted(topics) for c in topics[name] if c in CHARACTERS)
WIDTH, HEADS, LAYERS, LENGTH, BATCH = 64, 2, 2, 64, 8
RATES = 2e-3 * 2.0 ** np.arange(5)
EVERY, TOLERANCE = 10, 0.05  # steps between measurements; nats above the best that are still in the basin of rates

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "AdamW": lambda rate: gradtx.adamw(rate, b2=0.95, weight_decay=0.1),
    "Muon": lambda rate: gradtx.muon(rate, weight_decay=0.1, consistent_rms=0.2, adam_b2=0.95, adam_weight_decay=0.1),
    "SOAP": lambda rate: gradtx.soap(rate, b2=0.95, weight_decay=0.1),
}
ROLES = [
    (("embed", "positions"), gradtx.Role("embedding")),
    ("head", gradtx.Role("head")),
    ("layers/norm*", gradtx.Role("norm", stack=0)),
    ("layers/qkv", gradtx.Role("hidden", stack=0, in_axes=1, out_axes=2, blocks=(WIDTH,) * 3)),
    ("layers/**", gradtx.Role("hidden", stack=0, in_axes=1, out_axes=2)),
    ("norm", gradtx.Role("norm")),
]


def init_weights(key: jax.Array) -> dict[str, Any]:
    keys, normal = [jax.random.fold_in(key, i) for i in range(7)], jax.random.normal
    wide, ones, size, last = 4 * WIDTH, jnp.ones((LAYERS, WIDTH)), WIDTH**-0.5, (2 * LAYERS) ** -0.5
    qkv, up = (size * normal(keys[i], (LAYERS, WIDTH, n)) for i, n in ((0, 3 * WIDTH), (2, wide)))
    out, down = (last * n**-0.5 * normal(keys[i], (LAYERS, n, WIDTH)) for i, n in ((1, WIDTH), (3, wide)))
    embed, positions = (0.1 * normal(keys[i], (n, WIDTH)) for i, n in ((4, len(CHARACTERS)), (5, LENGTH)))
    layers = {"norm1": ones, "qkv": qkv, "out": out, "norm2": ones, "up": up, "down": down}
    head = size * normal(keys[6], (WIDTH, len(CHARACTERS)))
    return {"embed": embed, "positions": positions, "layers": layers, "norm": ones[0], "head": head}


def norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale[None, None]


def loss(weights: dict[str, Any], windows: jax.Array) -> jax.Array:
    """Cross entropy in nats a character."""
    characters = jax.nn.one_hot(windows, len(CHARACTERS))  # not by index, whose derivative is slow on CPUs
    x = characters[:, :-1] @ weights["embed"] + weights["positions"][None]
    for i in range(LAYERS):
        layer = {name: p[i] for name, p in weights["layers"].items()}
        qkv = (norm(x, layer["norm1"]) @ layer["qkv"]).reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS)
        attended = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0), is_causal=True)
        x = x + attended.reshape(x.shape) @ layer["out"]
        x = x + jax.nn.relu(norm(x, layer["norm2"]) @ layer["up"]) ** 2 @ layer["down"]
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(norm(x, weights["norm"]) @ weights["head"]) * characters[:, 1:], -1))


def trainer(make: Callable[[Any], Any], seeds: int, steps: int) -> Callable[[float], np.ndarray]:
    """From a learning rate to held-out losses, (seeds, steps / 10), in one compiled program."""
    numbers = jnp.asarray([CHARACTERS.index(c) for c in TEXT], jnp.int32)
    end, window = len(numbers) * 9 // 10, jnp.arange(LENGTH + 1)[None]
    held_out = numbers[end + jnp.linspace(0, len(numbers) - end - LENGTH - 1, 32, dtype=jnp.int32)[:, None] + window]

    def run(rate: jax.Array, seed: jax.Array) -> jax.Array:
        schedule = gradtx.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)
        tx = gradtx.with_roles(ROLES, gradtx.chain(gradtx.clip_by_global_norm(1.0), make(schedule)))
        start, batches = jax.random.split(jax.random.key(seed))
        weights = init_weights(start)

        def step(carry: tuple, i: jax.Array) -> tuple:
            weights, state = carry
            begins = jax.random.randint(jax.random.fold_in(batches, i), (BATCH, 1), 0, end - LENGTH)
            updates, state = tx.update(jax.grad(loss)(weights, numbers[begins + window]), state, weights)
            return (gradtx.apply_updates(weights, updates), state), None

        def ten_steps(carry: tuple, counts: jax.Array) -> tuple:
            carry, _ = jax.lax.scan(step, carry, counts)
            return carry, loss(carry[0], held_out)

        return jax.lax.scan(ten_steps, (weights, tx.init(weights)), jnp.arange(steps).reshape(-1, EVERY))[1]

    # Seeds in turn: vmap would be as slow on a CPU, and slower to compile.
    run_all = jax.jit(lambda rate: jax.lax.map(lambda seed: run(rate, seed), jnp.arange(seeds, dtype=jnp.int32)))
    return lambda rate: np.asarray(run_all(jnp.float32(rate)))


def reached(curves: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """For each seed, the part of the steps after which its curve is at its target; inf if it never is."""
    there = curves <= targets[:, None]
    return np.where(there.any(1), (there.argmax(1) + 1) / there.shape[1], np.inf)


def basin(final: np.ndarray) -> np.ndarray:
    """The lowest and the highest rate around the best that end within `TOLERANCE` of it, by interpolation."""
    x, best = np.geomspace(RATES[0], RATES[-1], 2001), RATES[np.nanargmin(final)]
    outside = x[~(np.interp(np.log(x), np.log(RATES), final) <= np.nanmin(final) + TOLERANCE)]  # also where it is NaN
    return np.array([outside[outside < best].max(initial=RATES[0]), outside[outside > best].min(initial=RATES[-1])])


def report(results: dict[str, np.ndarray], out: str) -> None:
    """A table, and a picture in which bands are the range over the seeds and bars the basins."""
    finals = {name: losses[..., -1].T for name, losses in results.items()}
    best = {name: int(np.nanargmin(final.mean(0))) for name, final in finals.items()}
    curves = {name: results[name][i] for name, i in best.items()}
    targets = curves["AdamW"][:, -1]
    figure = plot_curves({"Loss at the best rate": curves, "Loss in the end": finals}, xlabel="tens of steps")
    right = figure.axes[1]
    print("| optimizer | best rate | final loss | part of AdamW's steps | basin of rates |\n|---|---|---|---|---|")
    for line, (name, i) in zip(right.get_lines(), best.items(), strict=True):
        numbers, edges = (curves[name][:, -1], reached(curves[name], targets)), basin(finals[name].mean(0))
        spans = " | ".join(f"{x.mean():.2f} ({x.min():.2f} to {x.max():.2f})" for x in numbers)
        print(f"| {name} | {RATES[i]:g} | {spans} | {edges[0]:.4f} to {edges[1]:.4f}: {edges[1] / edges[0]:.1f}x |")
        right.hlines(numbers[0].mean() + TOLERANCE, *(1 + np.log2(edges / RATES[0])), color=line.get_color(), lw=4)
    for axes in figure.axes:
        axes.axhline(targets.mean(), color="#333333", linewidth=0.8, linestyle=":")
        axes.set_ylim(min(c.min() for c in curves.values()) - 0.05, targets.mean() + 0.7)
    right.set(xlabel="learning rate", xticks=1 + np.arange(len(RATES)), xticklabels=[f"{r:g}" for r in RATES])
    figure.savefig(out)


def main(argv: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of each run, a multiple of 10 (default: 300)")
    parser.add_argument("--seeds", type=int, default=5, help="how many runs for each rate (default: 5)")
    parser.add_argument("--out", default="sample_efficiency.png", help="the picture (default: sample_efficiency.png)")
    args = parser.parse_args(argv)
    print(f"{len(TEXT):,} characters, {args.steps} steps of {BATCH} x {LENGTH}, {args.seeds} seeds")
    runs = {name: trainer(make, args.seeds, args.steps) for name, make in OPTIMIZERS.items()}
    results = {name: np.stack([run(rate) for rate in track(RATES, name)]) for name, run in runs.items()}
    report(results, args.out)
    return results


if __name__ == "__main__":
    main()
