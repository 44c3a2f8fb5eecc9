# SPDX-License-Identifier: Apache-2.0
"""A smooth non-convex problem with tensors of rank 0 to 4, in NumPy float64."""

from types import ModuleType
from typing import Any

import numpy as np

SHAPES = {"scalar": (), "vector": (5,), "matrix": (4, 3), "cube": (2, 3, 2), "kernel": (2, 2, 3, 2)}


def start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: rng.normal(size=shape) for n, shape in SHAPES.items()}


def value(params: dict[str, np.ndarray]) -> float:
    return float(total(params, np))


def total(params: dict[str, Any], np: ModuleType) -> Any:
    """Σ (p² / 2 + cos(2p) / 4) + a weak coupling of everything through the mean square, in NumPy's or JAX's arrays."""
    everything = np.concatenate([np.ravel(p) for p in params.values()])
    return np.sum(everything**2 / 2 + np.cos(2 * everything) / 4) + 0.1 * np.sin(np.sum(everything**2))


def gradient(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    total = sum(np.sum(p**2) for p in params.values())
    return {n: p - np.sin(2 * p) / 2 + 0.2 * np.cos(total) * p for n, p in params.items()}
