# SPDX-License-Identifier: Apache-2.0
"""gradtx against optax: tracing, updates outside jit, the compiled step, and clipping one large leaf.

python tests/benchmarks/first_order.py [--leaves 1000] [--elements 32000000] [--rounds 15]
"""

import argparse
import platform

import jax
import jax.numpy as jnp
import optax
from timing import interleaved, report

import gradtx

LIBRARIES = {"gradtx": gradtx, "optax": optax}


def many_leaves(count: int) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), count)
    return {f"layer{i}": jax.random.normal(k, (8, 8 + i % 3)) for i, k in enumerate(keys)}


def tracing(leaves: int, rounds: int) -> None:
    params = many_leaves(leaves)
    txs = {name: library.adam(1e-3) for name, library in LIBRARIES.items()}
    states = {name: tx.init(params) for name, tx in txs.items()}

    def trace(name):
        jax.clear_caches()
        # a new function object, so that nothing of an earlier round is reused
        jax.jit(lambda g, s: txs[name].update(g, s)).trace(params, states[name])

    def compile(name):
        jax.clear_caches()
        jax.jit(lambda g, s: txs[name].update(g, s)).lower(params, states[name]).compile()

    report(f"trace adam, {leaves} leaves", interleaved({n: lambda n=n: trace(n) for n in txs}, rounds), "optax")
    compiling = interleaved({n: lambda n=n: compile(n) for n in txs}, 5)
    report(f"trace and compile adam, {leaves} leaves", compiling, "optax")
    eager = interleaved({n: lambda n=n: txs[n].update(params, states[n]) for n in txs}, rounds)
    report(f"update outside jit, adam, {leaves} leaves", eager, "optax")


def compiled_step(leaves: int, rounds: int) -> None:
    params = many_leaves(leaves)
    candidates = {}
    for name, library in LIBRARIES.items():
        candidates[name] = _step(library, library.adam(1e-3), params)
    report(f"compiled step, adam, {leaves} leaves", interleaved(candidates, 10 * rounds), "optax")


def _step(library, tx, params):
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    arguments = (params, tx.init(params), jax.tree.map(jnp.cos, params))
    compiled = jax.jit(step).lower(*arguments).compile()
    return lambda: compiled(*arguments)


def one_large_leaf(elements: int, rounds: int) -> None:
    params = {"w": jax.random.normal(jax.random.key(0), (elements,))}
    for name, library in LIBRARIES.items():
        adamw = library.adamw(1e-3)
        clipped = library.chain(library.clip_by_global_norm(1.0), adamw)
        stages = {"adamw": adamw, "clip_by_global_norm + adamw": clipped}
        candidates = {title: _step(library, tx, params) for title, tx in stages.items()}
        report(f"{name}: one leaf of {elements} elements", interleaved(candidates, rounds), "adamw")
    both = {name: _step(library, library.adamw(1e-3), params) for name, library in LIBRARIES.items()}
    report(f"adamw, one leaf of {elements} elements", interleaved(both, rounds), "optax")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=1000)
    parser.add_argument("--elements", type=int, default=32_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.device_kind} ({platform.machine()}), optax {optax.__version__}")
    tracing(arguments.leaves, arguments.rounds)
    compiled_step(arguments.leaves, arguments.rounds)
    one_large_leaf(arguments.elements, arguments.rounds)


if __name__ == "__main__":
    main()
