# SPDX-License-Identifier: Apache-2.0
"""Matrices whose rows or columns are brought to one length; stacks of matrices in the last two axes."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt

Sides = Literal["output", "input", "both", None]
Renormalization = Literal["output", "input", "output_input", "input_output", "frobenius", None]

SUMMED = {"output": -2, "input": -1}
"""The axis of a matrix (inputs, outputs) along which the elements of one output, or of one input, lie."""


def equilibrated(x: jax.Array, sides: str) -> jax.Array:
    """x / sqrt(Σ x² + 1e-8) with the sum of each output, of each input, or both factors of the same x."""
    if sides != "both":
        return _over_lengths(x, x, sides, 1e-8)
    return _over_lengths(_over_lengths(x, x, "output", 1e-8), x, "input", 1e-8)


def renormalized(x: jax.Array, how: str) -> jax.Array:
    """x / sqrt(Σ x² + 1e-7) for each output or input, or one after the other as named; or x sqrt(min(m, n)) / ‖x‖."""
    if how == "frobenius":
        size = safe_sqrt(jnp.sum(abs_sq(x), axis=(-2, -1), keepdims=True))
        return math.sqrt(min(x.shape[-2:])) * safe_divide(x, size.astype(x.dtype))
    for side in how.split("_"):
        x = _over_lengths(x, x, side, 1e-7)
    return x


def _over_lengths(x: jax.Array, y: jax.Array, side: str, eps: float) -> jax.Array:
    """x / sqrt(Σ y² + eps), for y of any size."""
    largest = jnp.max(jnp.abs(y), axis=(-2, -1), keepdims=True, initial=0)
    unit = safe_divide(y, largest.astype(y.dtype))  # so that squares neither overflow nor underflow
    length = safe_sqrt(jnp.sum(abs_sq(unit), axis=SUMMED[side], keepdims=True))
    ratio = safe_divide(x, largest.astype(x.dtype))
    least = safe_divide(jnp.asarray(math.sqrt(eps), largest.dtype), largest)
    return safe_divide(ratio, jnp.hypot(length, least).astype(x.dtype))
