# SPDX-License-Identifier: Apache-2.0
"""A step of AdamW on one large parameter, its moments kept by codecs, against float32 moments: time and bytes of state.

python tests/benchmarks/precision_speed.py [--millions 32] [--rounds 10]
"""

import argparse
import platform

import jax
import jax.numpy as jnp
from timing import interleaved, report

import gradtx
from gradtx import describe
from gradtx.precision import bfloat16, companded8, int4, int8

RATE, COLUMNS = 1e-3, 4096


def moments_in(mu, nu):
    stage = gradtx.stored(gradtx.scale_by_adam(), {"mu": mu, "nu": nu})
    return gradtx.chain(stage, gradtx.add_decayed_weights(1e-4), gradtx.scale_by_lr(RATE))


CASES = {
    "float32 moments": gradtx.adamw(RATE),
    "adamw8bit": gradtx.adamw8bit(RATE),
    "int8, to the nearest": moments_in(int8(stochastic=False), int8(signed=False)),
    "companded8": moments_in(companded8(), companded8(signed=False, stochastic=True)),
    "companded8, to the nearest": moments_in(companded8(stochastic=False), companded8(signed=False)),
    "int4": moments_in(int4(), int4(signed=False)),
    "bfloat16": moments_in(bfloat16(), bfloat16()),
}


def stepper(tx, params, gradients):
    """A function that makes one step, in place."""

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return gradtx.apply_updates(params, updates), state

    state = jax.jit(tx.init)(params)
    held = [jnp.copy(params), state]
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*held, gradients).compile()

    def run():
        held[:] = compiled(*held, gradients)
        return held

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=32, help="elements of the parameter")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    shape = (args.millions * 2**20 // COLUMNS, COLUMNS)
    params, noise = (jax.random.normal(jax.random.key(seed), shape) for seed in (0, 1))
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.device_kind} ({platform.machine()}), {shape[0]} x {shape[1]} numbers")
    for name, tx in CASES.items():
        print(f"  {name:<32} {describe(tx, params).bytes_per_element:.3f} bytes of state a parameter")
    steppers = {name: stepper(tx, params, 1e-3 * noise) for name, tx in CASES.items()}
    report("step", interleaved(steppers, args.rounds), next(iter(CASES)))


if __name__ == "__main__":
    main()
