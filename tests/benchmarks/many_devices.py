# SPDX-License-Identifier: Apache-2.0
"""What the state of a transformer of 70 billion parameters takes on each of 512 devices, and what a step moves.

    python tests/benchmarks/many_devices.py [--layers 80]

Nothing is computed: the devices are those of an abstract mesh, and only `init` is traced. Layers come in two forms, as
one stack with a leading axis, as `scan` has them, and one by one. Matrices are split over `model`; the state is spread
over `data` too, by `zero`. Bytes moved a step are those of one device, by rings: of gradients in bfloat16, which are
summed over `data`, and of updates in bfloat16, which are gathered along it.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.sharding import bytes_per_device, zero

MESH = AbstractMesh((64, 8), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
WIDTH, INNER, VOCABULARY, KEYS = 8192, 28672, 128256, 1024
LAYER = {
    "query": ((WIDTH, WIDTH), P(None, "model")),
    "key": ((WIDTH, KEYS), P(None, "model")),
    "value": ((WIDTH, KEYS), P(None, "model")),
    "output": ((WIDTH, WIDTH), P("model")),
    "gate": ((WIDTH, INNER), P(None, "model")),
    "up": ((WIDTH, INNER), P(None, "model")),
    "down": ((INNER, WIDTH), P("model")),
    "attention_norm": ((WIDTH,), P()),
    "mlp_norm": ((WIDTH,), P()),
}
OUTSIDE = {
    "embedding": ((VOCABULARY, WIDTH), P("model")),
    "head": ((WIDTH, VOCABULARY), P(None, "model")),
    "norm": ((WIDTH,), P()),
}
RECIPES = {
    "adamw": gradtx.adamw(1e-3),
    "clip + adamw": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)),
    "adamw8bit": gradtx.adamw8bit(1e-3),
    "adafactor": gradtx.adafactor(1e-3),
    "lion": gradtx.lion(1e-4),
    "lamb": gradtx.lamb(1e-3),
    "muon": gradtx.muon(1e-3),
}


def model(layers: int, stacked: bool) -> tuple[dict, dict]:
    """The shapes of the parameters and their specs."""
    shapes: dict[str, Any] = {name: shape for name, (shape, _) in OUTSIDE.items()}
    specs: dict[str, Any] = {name: spec for name, (_, spec) in OUTSIDE.items()}
    if stacked:
        shapes["layers"] = {name: (layers, *shape) for name, (shape, _) in LAYER.items()}
        specs["layers"] = {name: P(None, *spec) for name, (_, spec) in LAYER.items()}
    else:
        shapes["layers"] = [{name: shape for name, (shape, _) in LAYER.items()} for _ in range(layers)]
        specs["layers"] = [{name: spec for name, (_, spec) in LAYER.items()} for _ in range(layers)]
    made = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.bfloat16), shapes, is_leaf=lambda s: type(s) is tuple)
    return made, specs


def reckoning(tx: Any, layers: int, stacked: bool) -> tuple[float, Any]:
    """The seconds that `bytes_per_device` took, and what it found."""
    params, specs = model(layers, stacked)
    if stacked:
        tx = gradtx.with_roles([("layers/**", gradtx.Role("hidden", stack=0)), ("**", gradtx.Role())], tx)
    tx = zero(tx, "data", mesh=MESH, specs=specs)
    start = time.perf_counter()
    found = bytes_per_device(tx, params, mesh=MESH, specs=specs)
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=80)
    layers = parser.parse_args().layers
    params, specs = model(layers, stacked=False)
    leaves = list(zip(jax.tree.leaves(params), jax.tree.leaves(specs), strict=True))
    total = sum(x.size for x, _ in leaves)
    part = sum(2 * x.size // (8 if "model" in tuple(spec) else 1) for x, spec in leaves)
    data = MESH.shape["data"]
    print(f"{total / 1e9:.1f} billion parameters, {MESH.size} devices: {dict(MESH.shape)}")
    moved = 2 * part * (data - 1) / data
    print(f"gradients: {moved / 2**30:.2f} GiB a step and device in an all-reduce, half of it in a reduce-scatter")
    print(f"updates: {moved / 2 / 2**30:.2f} GiB a step and device in an all-gather")
    print(f"{'':14}{'GiB in all':>12}{'MiB a device':>14}{'even share':>12}{'s, stacked':>12}{'s, by layer':>12}")
    for name, tx in RECIPES.items():
        stacked, _ = reckoning(tx, layers, stacked=True)
        single, found = reckoning(tx, layers, stacked=False)
        share = found.per_device * MESH.size / max(found.total, 1)
        numbers = (
            f"{found.total / 2**30:12.1f}{found.per_device / 2**20:14.1f}{share:12.3f}{stacked:12.1f}{single:12.1f}"
        )
        print(f"{name:14}{numbers}")


if __name__ == "__main__":
    main()
