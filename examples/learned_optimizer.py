# SPDX-License-Identifier: Apache-2.0
"""A learned optimizer and its outer loop: Adam's step, corrected by a small network that is trained for it.

For each element, the network sees the gradient and its average, both divided by the root of the second moment, and the
age of the run. It gives a direction to add and the logarithm of a factor, 0 both at first: training begins at Adam. The
rule is one for arrays, lifted by `per_parameter`. The outer loop descends on the mean loss of inner runs, by gradients
through them with respect to the network of the rule. Inner runs are softmax regressions on digits, from random starts
and batches; the table is of other starts, of longer runs, and of a model that the optimizer was not trained for.

    python examples/learned_optimizer.py
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from digits import Data, cross_entropy, init_weights, load
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gradtx

RATE, B1, B2 = 0.01, 0.9, 0.99
RATES = [0.003, 0.01, 0.03, 0.1, 0.3]
BATCH, INNER, RUNS = 64, 30, 4
# What is trained: the sizes of the layers, how many steps.
TASKS = {
    "as trained on": ((64, 10), INNER),
    "ten times as long": ((64, 10), 10 * INNER),
    "network": ((64, 32, 10), 100),
}


class LearnedState(NamedTuple):
    count: Any
    mu: Any
    nu: Any


def learned(net: dict[str, jax.Array]) -> gradtx.GradientTransformation:
    """u = -RATE exp(s) (m / sqrt(v) + d), where (d, s) are outputs of the network for each element."""

    def init(p):
        return jnp.zeros_like(p), jnp.zeros_like(p)

    def update(g, slots, p, t):
        mu, nu = B1 * slots[0] + (1 - B1) * g, B2 * slots[1] + (1 - B2) * g * g
        size = jnp.sqrt(nu / (1 - B2**t) + 1e-16)  # pixels that are always 0 have a derivative, too
        adam, age = mu / (1 - B1**t) / size, jnp.tanh(t / 100)
        features = jnp.stack([g / size, adam, jnp.full_like(g, age)], axis=-1).reshape(-1, 3)
        hidden = jnp.tanh(features @ net["w_in"] + net["b_in"][None])
        d, s = (hidden @ net["w_out"]).T.reshape(2, *g.shape)
        return -RATE * jnp.exp(s) * (adam + d), (mu, nu)

    return gradtx.per_parameter(init, update, LearnedState)


def init_net(key: jax.Array, hidden: int = 16) -> dict[str, jax.Array]:
    w_in = jax.random.normal(key, (3, hidden)) / 3**0.5
    return {"w_in": w_in, "b_in": jnp.zeros(hidden), "w_out": jnp.zeros((hidden, 2))}


def losses_of_run(tx: Any, sizes: tuple, steps: int, data: Data, key: jax.Array) -> jax.Array:
    """The loss of each step of a run, on the batch of the step."""

    def step(carry: tuple, i: jax.Array) -> tuple:
        weights, state = carry
        batch = jax.random.randint(jax.random.fold_in(key, i), (BATCH,), 0, len(data.images))
        loss, grads = jax.value_and_grad(cross_entropy)(weights, data.images[batch], data.labels[batch])
        updates, state = tx.update(grads, state, weights)
        return (gradtx.apply_updates(weights, updates), state), loss

    weights = init_weights(key, sizes)
    return jax.lax.scan(step, (weights, tx.init(weights)), jnp.arange(steps, dtype=jnp.int32))[1]


def outer_loss(net: Any, data: Data, key: jax.Array) -> jax.Array:
    runs = jax.vmap(lambda key: losses_of_run(learned(net), (64, 10), INNER, data, key))
    return jnp.mean(runs(jax.random.split(key, RUNS)))


@partial(jax.jit, static_argnames=("make", "sizes", "steps"))
def last_loss(make: Any, numbers: Any, sizes: tuple, steps: int, data: Data) -> jax.Array:
    """The mean loss of the last tenth of runs of `make(numbers)`, from starts that training has not seen."""
    run = jax.vmap(lambda key: losses_of_run(make(numbers), sizes, steps, data, key))
    return jnp.mean(run(jax.random.split(jax.random.key(10_000), RUNS))[:, -(steps // 10) :])


def adam(rate: jax.Array) -> gradtx.GradientTransformation:
    return gradtx.adam(rate, B1, B2)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of the outer loop (default: 300)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, data = Console(quiet=args.quiet), load()
    start = net = init_net(jax.random.key(0))
    outer = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(3e-3))
    state = outer.init(net)

    @jax.jit
    def outer_step(net: Any, state: Any, key: jax.Array) -> tuple:
        loss, grads = jax.value_and_grad(outer_loss)(net, data, key)
        updates, state = outer.update(grads, state, net)
        return gradtx.apply_updates(net, updates), state, loss

    outer_losses = []
    for i in track(range(args.steps), "outer loop", console=console):
        net, state, loss = outer_step(net, state, jax.random.key(i))
        outer_losses.append(float(loss))

    table = Table("loss in the end", f"Adam, {RATE}", "untrained", "Adam, best of 5 rates", "learned")
    results = {}
    for name, (sizes, steps) in track(TASKS.items(), "comparing", console=console):
        adams = [float(last_loss(adam, jnp.float32(rate), sizes, steps, data)) for rate in RATES]
        before, after = (float(last_loss(learned, x, sizes, steps, data)) for x in (start, net))
        results[name] = adams[RATES.index(RATE)], before, min(adams), after
        table.add_row(name, *(f"{x:.3f}" for x in results[name]))
    console.print(table)
    return {"outer": outer_losses, "tasks": results}


if __name__ == "__main__":
    main()
