# SPDX-License-Identifier: Apache-2.0
"""A home-made optimizer in ten lines of maths, and what the library makes of it.

The rule: divide the moving average of the gradients by the moving average of their sizes. Where all recent gradients
agree in sign the quotient is 1 or -1, where they cancel it is near 0: a vote of the last steps on the direction. Both
averages start at zero with the same decay, so the quotient needs no bias correction, and no squares can overflow.

    python examples/write_your_own.py
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import gradtx
from gradtx.testing import check_contract


class ScaleByConsensusState(NamedTuple):
    """The moving averages of g and |g|."""

    mean: Any
    size: Any


# The ten lines. The rule sees one array; trees, None leaves, precision and checks of the arguments are not its job.
@gradtx.transformation
def scale_by_consensus(decay: gradtx.typing.Decay = 0.9, eps: gradtx.typing.NonNegative = 1e-12):
    """mean = decay mean + (1 - decay) g; size likewise of |g|; u = mean / (size + eps), between -1 and 1."""

    def init(p):
        return jnp.zeros_like(p), jnp.zeros_like(p)

    def update(g, slots, p, t):
        mean = decay * slots[0] + (1 - decay) * g
        size = decay * slots[1] + (1 - decay) * jnp.abs(g)
        return mean / (size + eps), (mean, size)

    return gradtx.per_parameter(init, update, ScaleByConsensusState)


@gradtx.transformation
def consensus(learning_rate: gradtx.typing.ScalarOrSchedule, decay: gradtx.typing.Decay = 0.9):
    """The recipe: the direction, then the learning rate."""
    return gradtx.chain(scale_by_consensus(decay), gradtx.scale_by_lr(learning_rate))


def plain_pair(learning_rate: float) -> gradtx.GradientTransformation:
    """The same contract without any help: two pure functions. This one is gradient descent."""

    def init(params):
        return ()

    def update(updates, state, params=None):
        return jax.tree.map(lambda g: -learning_rate * g, updates), state

    return gradtx.GradientTransformation(init, update)


def data(seed: int) -> tuple[jax.Array, jax.Array]:
    """200 points of two interleaved spiral arms, labeled 1 and -1."""
    rng = np.random.default_rng(seed)
    angle = np.sqrt(rng.uniform(size=200)) * 3 * np.pi
    label = np.where(np.arange(200) % 2 == 0, 1.0, -1.0)
    points = label * angle * np.stack([np.cos(angle), np.sin(angle)]) / (3 * np.pi)
    points += rng.normal(scale=0.01, size=points.shape)
    return jnp.asarray(points.T, jnp.float32), jnp.asarray(label, jnp.float32)


def init_params(seed: int) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "w1": jax.random.normal(keys[0], (2, 32)) * 4,
        "b1": jax.random.normal(keys[1], (32,)) * 2,
        "w2": jax.random.normal(keys[2], (32, 1)) * 0.2,
    }


def loss_of(params: dict[str, jax.Array], points: jax.Array, labels: jax.Array) -> jax.Array:
    """The logistic loss of a network with one hidden layer."""
    hidden = jnp.tanh(points @ params["w1"] + params["b1"][None])
    return jnp.mean(jax.nn.softplus(-labels * (hidden @ params["w2"])[:, 0]))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="of each training (default: 500)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console = Console(quiet=args.quiet, highlight=False)
    points, labels = data(0)
    params = init_params(0)
    traces = 0

    # The transformation is an argument of the compiled function; its hyperparameters are traced numbers in there.
    @jax.jit
    def train(tx: Any, params: Any) -> jax.Array:
        nonlocal traces
        traces += 1

        def step(carry: tuple, _: None) -> tuple:
            params, state = carry
            grads = jax.grad(loss_of)(params, points, labels)
            updates, state = tx.update(grads, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=args.steps)
        return loss_of(params, points, labels)

    tx = consensus(0.01)
    console.print(f"It is a value: {tx}, with the leaves {jax.tree.leaves(tx)}")
    console.print(f"It stands for {tx.expanded}")
    check_contract(tx, params)
    check_contract(plain_pair(0.1), params)
    console.print("It keeps the contract, and so does the plain pair")

    rates, decays = (0.001, 0.003, 0.01), (0.5, 0.9, 0.99)
    losses = {(rate, decay): float(train(consensus(rate, decay), params)) for rate in rates for decay in decays}
    sweep = Table("loss after training", *(f"decay {d}" for d in decays))
    for rate in rates:
        sweep.add_row(f"rate {rate}", *(f"{losses[rate, d]:.4f}" for d in decays))
    console.print(sweep)
    compilations = traces
    console.print(f"{len(losses)} trainings, compiled {compilations} time(s)")

    # Mapped over, it is a population. The leaves of this value are arrays of three rates and three decays.
    population = jax.tree.map(lambda *xs: jnp.asarray(xs), *(consensus(rate, 0.9) for rate in rates))
    together = jax.vmap(train, in_axes=(0, None))(population, params)
    console.print("The three rates with decay 0.9 at once:", ", ".join(f"{x:.4f}" for x in together))

    peers = {repr(tx): tx for tx in (gradtx.sgd(0.1), gradtx.adam(0.01), consensus(0.01))}
    compared = {name: float(train(peer, params)) for name, peer in peers.items()}
    compared["plain_pair(0.1)"] = float(train(plain_pair(0.1), params))
    table = Table("optimizer", "loss after training")
    for name, loss in compared.items():
        table.add_row(name, f"{loss:.4f}")
    console.print(table)
    return {"sweep": losses, "compilations": compilations, "population": np.asarray(together), "compared": compared}


if __name__ == "__main__":
    main()
