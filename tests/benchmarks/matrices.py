# SPDX-License-Identifier: Apache-2.0
"""Muon against Optax's: many equal matrices, a stack of them, the shapes of a transformer of 12 layers.

python tests/benchmarks/matrices.py [--rounds 5] [--case "192 matrices"]
"""

import argparse
import platform

import jax
import jax.numpy as jnp
import optax
from timing import interleaved, report

import gradtx
from gradtx import Role

WIDTH, LAYERS = 128, 12
LAYER = {"q": (1, 1), "k": (1, 1), "v": (1, 1), "out": (1, 1), "up": (1, 4), "down": (4, 1)}


def filled(shapes):
    keys = iter(jax.random.split(jax.random.key(0), 1000))
    return jax.tree.map(lambda s: jax.random.normal(next(keys), s), shapes, is_leaf=lambda x: isinstance(x, tuple))


def separate(count):
    return filled({str(i): (WIDTH, WIDTH) for i in range(count)})


def stacked():
    return filled({"layers": (96, WIDTH, WIDTH)})


def transformer():
    return filled([{n: (a * WIDTH, b * WIDTH) for n, (a, b) in LAYER.items()} for _ in range(LAYERS)])


def of_stack():
    return gradtx.with_roles([("**", Role("hidden", stack=0))], gradtx.muon(1e-3))


CASES = {
    "192 matrices": {
        "gradtx": (lambda: gradtx.muon(1e-3), lambda: separate(192)),
        "optax": (None, lambda: separate(192)),
    },
    "96 matrices": {"gradtx": (lambda: gradtx.muon(1e-3), lambda: separate(96)), "optax": (None, lambda: separate(96))},
    "a stack of 96": {"gradtx": (of_stack, stacked), "optax": (None, lambda: separate(96))},
    "transformer of 12 layers": {"gradtx": (lambda: gradtx.muon(1e-3), transformer), "optax": (None, transformer)},
}


def stages(make, params):
    """Functions that trace, compile and run a step."""
    parameters, tx = params(), optax.contrib.muon(1e-3) if make is None else make()
    state = tx.init(parameters)

    def traced():
        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return jax.tree.map(jnp.add, params, updates), state

        jax.clear_caches()
        return jax.jit(step).trace(parameters, state, parameters)

    compiled = traced().lower().compile()
    return {
        "trace": lambda: traced() and None,
        "trace and compile": lambda: traced().lower().compile() and None,
        "step": lambda: compiled(parameters, state, parameters),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", choices=CASES)
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, jax {jax.__version__}")
    for name, candidates in CASES.items():
        if arguments.case in (None, name):
            ready = {who: stages(*what) for who, what in candidates.items()}
            for stage in ("trace", "trace and compile", "step"):
                rounds = arguments.rounds * (5 if stage == "step" else 1)
                medians = interleaved({who: functions[stage] for who, functions in ready.items()}, rounds)
                report(f"{name}: {stage}", medians, "optax")


if __name__ == "__main__":
    main()
