# SPDX-License-Identifier: Apache-2.0
"""The parameters that are measured, in two sizes: full, and small, which compiles fast and is good for counting."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Params = Any


class Size(NamedTuple):
    """How much of everything."""

    large: tuple[int, int]
    layers: int
    width: int
    vocabulary: int
    leaves: int
    many: int
    matrices: int
    matrix: int


FULL = Size((8192, 4096), layers=12, width=256, vocabulary=4096, leaves=1000, many=10_000, matrices=192, matrix=128)
SMALL = Size((256, 128), layers=1, width=128, vocabulary=128, leaves=6, many=12, matrices=8, matrix=16)


def random(shapes: Any) -> Params:
    """Normal numbers. They are drawn by NumPy, which compiles nothing for a new shape."""
    rng = np.random.default_rng(0)

    def drawn(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32) * np.float32(0.1))

    return jax.tree.map(drawn, shapes, is_leaf=lambda x: isinstance(x, tuple))


def large(size: Size) -> Params:
    """One leaf of 32 Mi numbers."""
    return random({"w": size.large})


def small_leaves(count: int) -> Params:
    """Leaves of 1,000 numbers, of three shapes."""
    shapes = [(10, 100), (20, 50), (25, 40)]
    return random({f"leaf{i}": shapes[i % 3] for i in range(count)})


def layer(width: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """The 12 leaves of a layer of a transformer."""
    square = (width, width)
    return {
        "attention": {"q": square, "k": square, "v": square, "out": square},
        "mlp": {"up": (width, 4 * width), "up_bias": (4 * width,), "down": (4 * width, width), "down_bias": (width,)},
        "norm1": {"scale": (width,), "bias": (width,)},
        "norm2": {"scale": (width,), "bias": (width,)},
    }


def gpt(size: Size) -> Params:
    """148 leaves: 12 layers of 12, and 4."""
    layers = {str(i): layer(size.width) for i in range(size.layers)}
    return random({"layers": layers, **_outside(size)})


def stacked_gpt(size: Size) -> Params:
    """The same numbers in 16 leaves: each of the 12 has the layers along its first axis."""
    stacks = jax.tree.map(lambda s: (size.layers, *s), layer(size.width), is_leaf=lambda s: isinstance(s, tuple))
    return random({"layers": stacks, **_outside(size)})


def _outside(size: Size) -> dict[str, tuple[int, ...]]:
    width, vocabulary = size.width, size.vocabulary
    return {"embed": (vocabulary, width), "positions": (128, width), "norm": (width,), "head": (width, vocabulary)}


def matrices(size: Size) -> Params:
    """Separate matrices of one shape."""
    return random({str(i): (size.matrix, size.matrix) for i in range(size.matrices)})


def half_of_the_matrices(size: Size) -> Params:
    return matrices(size._replace(matrices=size.matrices // 2))


def stacked_matrices(size: Size) -> Params:
    """Half of the matrices, as one leaf."""
    return random({"layers": {"w": (size.matrices // 2, size.matrix, size.matrix)}})


def matrices_of_layers(size: Size) -> Params:
    """The six matrices of each layer of a transformer."""
    n = size.matrix
    shapes = {"q": (n, n), "k": (n, n), "v": (n, n), "out": (n, n), "up": (n, 4 * n), "down": (4 * n, n)}
    return random([shapes for _ in range(size.layers)])
