# SPDX-License-Identifier: Apache-2.0
"""One transformer of characters, trained in plain JAX, flax linen, flax nnx and equinox: the losses are the same.

The models are in character_models.py, and the text is that of sample_efficiency.py. All start from the same values and
see the same batches. Roles say what the parameters are, so that Muon treats them alike wherever they lie: in linen the
layers are stacked, in equinox outputs come before inputs, and everywhere query, key and value, which lie beside each
other in one array, are three matrices. What differs in the end is the rounding of sums.

    python examples/frameworks.py
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from character_models import EquinoxTransformer, LinenTransformer, NnxTransformer, loss_of, named_as_in_flax
from flax import nnx
from flax.training.train_state import TrainState
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sample_efficiency import BATCH, CHARACTERS, LENGTH, ROLES, TEXT, WIDTH, init_weights, loss

import gradtx

Batches = Iterable[jax.Array]


def optimizer(roles: Sequence[tuple]) -> Any:
    return gradtx.with_roles(roles, gradtx.muon(4e-3, weight_decay=0.1, consistent_rms=0.2))


def roles_of_modules(norms: str, **matrix: Any) -> list[tuple]:
    """The roles of sample_efficiency.py, for parameters that are attributes of modules."""
    return [
        (("embed/*", "positions"), gradtx.Role("embedding")),
        ("head/*", gradtx.Role("head")),
        (norms, gradtx.Role("norm", stack=matrix.get("stack", ()))),
        ("norm/*", gradtx.Role("norm")),
        ("qkv/*", gradtx.Role("hidden", blocks=(WIDTH,) * 3, **matrix)),
        ("layers/**", gradtx.Role("hidden", **matrix)),
    ]


def plain(weights: dict[str, Any], batches: Batches) -> Iterator[jax.Array]:
    tx = optimizer(ROLES)
    state = tx.init(weights)

    @jax.jit
    def step(weights: Any, state: Any, batch: jax.Array) -> tuple:
        value, grads = jax.value_and_grad(loss)(weights, batch)
        updates, state = tx.update(grads, state, weights)
        return gradtx.apply_updates(weights, updates), state, value

    for batch in batches:
        weights, state, value = step(weights, state, batch)
        yield value


def linen(weights: dict[str, Any], batches: Batches) -> Iterator[jax.Array]:
    tx = optimizer(roles_of_modules("layers/norm*/*", stack=0, in_axes=1, out_axes=2))
    state = TrainState.create(apply_fn=LinenTransformer().apply, params=named_as_in_flax(weights), tx=tx)

    @jax.jit
    def step(state: TrainState, batch: jax.Array) -> tuple:
        value, grads = jax.value_and_grad(lambda params: state.apply_fn({"params": params}, batch))(state.params)
        return state.apply_gradients(grads=grads), value

    for batch in batches:
        state, value = step(state, batch)
        yield value


def in_nnx(weights: dict[str, Any], batches: Batches) -> Iterator[jax.Array]:
    model = NnxTransformer(weights, nnx.Rngs(0))
    tx = optimizer(roles_of_modules("layers/*/norm*/*", in_axes=0, out_axes=1))
    trained_by = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: NnxTransformer, trained_by: nnx.Optimizer, batch: jax.Array) -> jax.Array:
        value, grads = nnx.value_and_grad(loss_of)(model, batch)
        trained_by.update(model, grads)
        return value

    for batch in batches:
        yield step(model, trained_by, batch)


def equinox(weights: dict[str, Any], batches: Batches) -> Iterator[jax.Array]:
    model, tx = EquinoxTransformer(weights), optimizer(roles_of_modules("layers/*/norm*/*", in_axes=1, out_axes=0))
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: EquinoxTransformer, state: Any, batch: jax.Array) -> tuple:
        value, grads = eqx.filter_value_and_grad(loss_of)(model, batch)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, value

    for batch in batches:
        model, state, value = step(model, state, batch)
        yield value


FRAMEWORKS = {"plain JAX": plain, "linen, scanned": linen, "nnx": in_nnx, "equinox": equinox}


def batches_of_text(steps: int) -> jax.Array:
    """Windows of the text at random places, (steps, BATCH, LENGTH + 1)."""
    numbers = np.asarray([CHARACTERS.index(c) for c in TEXT], np.int32)
    begins = np.random.default_rng(0).integers(len(numbers) - LENGTH, size=(steps, BATCH, 1))
    return jnp.asarray(numbers[begins + np.arange(LENGTH + 1)])


def main(argv: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="of each framework (default: 100)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console = Console(quiet=args.quiet)
    weights, batches = init_weights(jax.random.key(0)), batches_of_text(args.steps)
    losses = {
        name: np.asarray([float(x) for x in track(train(weights, batches), name, args.steps, console=console)])
        for name, train in FRAMEWORKS.items()
    }
    table = Table("step", *losses, title="Loss, in nats a character")
    for i in sorted({0, *np.linspace(0, args.steps - 1, 6).astype(int).tolist()}):
        table.add_row(str(i + 1), *(f"{x[i]:.4f}" for x in losses.values()))
    furthest = (f"{np.abs(x - losses['plain JAX']).max():.1g}" for x in losses.values())
    table.add_row("furthest from plain JAX", *furthest)
    console.print(table)
    return losses


if __name__ == "__main__":
    main()
