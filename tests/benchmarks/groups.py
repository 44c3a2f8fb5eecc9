# SPDX-License-Identifier: Apache-2.0
"""What groups and roles cost: against no groups, against one transformation for each group, against single layers.

python tests/benchmarks/groups.py [--rounds 15]
"""

import argparse
import platform

import jax
import jax.numpy as jnp
from timing import interleaved, report

import gradtx
from gradtx import Role

LAYERS, GROUPS = 12, 10
LAYER = {
    "attention": {"q": (64, 64), "k": (64, 64), "v": (64, 64), "out": (64, 64)},
    "mlp": {"up": (64, 256), "up_bias": (256,), "down": (256, 64), "down_bias": (64,)},
    "norm1": {"scale": (64,), "bias": (64,)},
    "norm2": {"scale": (64,), "bias": (64,)},
}
OUTSIDE = {"embed": (512, 64), "positions": (128, 64), "norm": (64,), "head": (64, 512)}


def is_shape(x):
    return isinstance(x, tuple)


def transformer():
    """148 leaves: 12 layers of 12, and 4."""
    shapes = {"layers": {str(i): LAYER for i in range(LAYERS)}, **OUTSIDE}
    return jax.tree.map(lambda shape: jnp.full(shape, 0.1), shapes, is_leaf=is_shape)


def stacked():
    """The same with 12 leaves of stacked layers, and 4."""
    shapes = {"layers": jax.tree.map(lambda shape: (LAYERS, *shape), LAYER, is_leaf=is_shape), **OUTSIDE}
    return jax.tree.map(lambda shape: jnp.full(shape, 0.1), shapes, is_leaf=is_shape)


def ten_groups():
    """A rate for each of nine choices; what is left has the base's."""
    choices = ["embed", "head", "positions", *(f"layers/{i}/**" for i in range(LAYERS - 6))]
    assert len(choices) == GROUPS - 1
    return [(where, 1.0 - 0.05 * (i + 1)) for i, where in enumerate(choices)]


def label(params):
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(params)]
    prefixes = [where.removesuffix("**") for where, _ in ten_groups()]
    found = [next((i for i, p in enumerate(prefixes) if name.startswith(p)), GROUPS - 1) for name in names]
    return jax.tree.unflatten(jax.tree.structure(params), found)


def no_groups():
    return gradtx.adamw(1e-3)


def with_groups():
    return gradtx.groups([(where, {"learning_rate": gradtx.times(f)}) for where, f in ten_groups()], gradtx.adamw(1e-3))


def with_partition():
    txs = {i: gradtx.adamw(1e-3 * factor) for i, (_, factor) in enumerate(ten_groups())}
    return gradtx.partition({**txs, GROUPS - 1: gradtx.adamw(1e-3)}, label)


def of_stacks():
    rules = (("layers/**", Role(stack=0)), ("**", Role()))
    return gradtx.with_roles(rules, gradtx.lamb(1e-3))


def of_layers():
    return gradtx.lamb(1e-3)


CASES = {
    "10 groups, 148 leaves, adamw": {
        "no groups": (no_groups, transformer),
        "groups": (with_groups, transformer),
        "partition with 10 labels": (with_partition, transformer),
    },
    "12 layers, lamb": {
        "12 leaves a parameter": (of_layers, transformer),
        "stacks with roles": (of_stacks, stacked),
    },
}


def stages(make, params):
    """Functions that trace, compile and run a step. A restored state is of a transformation that has made none."""
    parameters, known = params(), make()
    state = known.init(parameters)

    def traced(tx):
        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return gradtx.apply_updates(params, updates), state

        jax.clear_caches()
        return jax.jit(step).trace(parameters, state, parameters)

    compiled = traced(known).lower().compile()
    return {
        "trace": lambda: traced(known) and None,
        "trace of a restored state": lambda: traced(make()) and None,
        "trace and compile": lambda: traced(known).lower().compile() and None,
        "step": lambda: compiled(parameters, state, parameters),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.device_kind} ({platform.machine()})")
    for title, cases in CASES.items():
        made = {name: stages(*case) for name, case in cases.items()}
        for what, count in (
            ("trace", rounds),
            ("trace of a restored state", rounds),
            ("trace and compile", 5),
            ("step", 20 * rounds),
        ):
            seconds = interleaved({name: functions[what] for name, functions in made.items()}, count)
            report(f"{title}: {what}", seconds, next(iter(cases)))


if __name__ == "__main__":
    main()
