# SPDX-License-Identifier: Apache-2.0
"""Meshes over the eight devices of the test world, and parameters on them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

SPECS = {"w": P("data", "model"), "v": P("model", "data"), "b": P("model"), "n": P()}
SHAPES = {"w": (256, 512), "v": (512, 256), "b": (512,), "n": (32,)}


def mesh(kind: AxisType = AxisType.Auto, **sizes: int) -> jax.sharding.Mesh:
    """A mesh with axes of these sizes; without any, of 4 x 2 devices."""
    sizes = sizes or {"data": 4, "model": 2}
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(kind,) * len(sizes))


def structs(on: Any, specs: dict = SPECS, dtype: Any = jnp.float32) -> dict:
    """Parameters that nobody has made, with shardings."""
    return {n: jax.ShapeDtypeStruct(SHAPES[n], dtype, sharding=NamedSharding(on, s)) for n, s in specs.items()}


def numbers(seed: int = 0, scale: float = 1.0) -> dict:
    r = np.random.default_rng(seed)
    return {n: np.asarray(scale * r.normal(size=shape), np.float32) for n, shape in SHAPES.items()}


def put(tree: dict, on: Any, specs: dict = SPECS) -> dict:
    return {n: jax.device_put(x, NamedSharding(on, specs[n])) for n, x in tree.items()}


def split(x: jax.Array, mesh: jax.sharding.Mesh) -> NamedSharding:
    """Along as many axes of the mesh as its shape lets it, from the first axis on; an odd one is whole."""
    left, spec = list(mesh.shape.items()), []
    for size in x.shape:
        spec.append(())
        while left and size and size % left[-1][1] == 0:
            name, parts = left.pop()
            spec[-1], size = (*spec[-1], name), size // parts
    return NamedSharding(mesh, P(*spec))
