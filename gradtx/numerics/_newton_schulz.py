# SPDX-License-Identifier: Apache-2.0
"""Orthogonalization of matrices by Newton-Schulz iterations: products only, no decomposition.

The functions take one matrix, or a stack of matrices along any leading axes, which are computed at once.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._placement import laid_like, whole_in_loop
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt

Preconditioning = Literal["frobenius", "spectral", "schatten", "aol"]
PRECONDITIONINGS = ("frobenius", "spectral", "schatten", "aol")

QUINTIC = (3.4445, -4.775, 2.0315)
"""Jordan et al. 2024: steep at 0, so that five steps bring singular values to between 0.7 and 1.2, not to 1."""

_POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
# The safety factor by which the authors divide before the first step is a part of the first step here.
POLAR_EXPRESS = (tuple(x / 1.02**n for x, n in zip(_POLAR_EXPRESS[0], (1, 3, 5), strict=True)), *_POLAR_EXPRESS[1:])
"""Amsel et al. 2025, arXiv:2505.16932: the optimal quintic for each of five steps, for singular values from 1e-3."""

PRESETS = {"quintic": QUINTIC, "polar_express": POLAR_EXPRESS}


def coefficients_of(where: str, coefficients: Any) -> np.ndarray:
    """The coefficients, of shape (3,) or (steps, 3), from the name of a preset, a triple or a sequence of triples."""
    if isinstance(coefficients, str):
        if coefficients not in PRESETS:
            raise ValueError(f"{where}: ns_coeffs must be one of {tuple(PRESETS)} or numbers, got {coefficients!r}")
        coefficients = PRESETS[coefficients]
    found = np.asarray(coefficients, np.float64)
    if found.ndim not in (1, 2) or found.shape[-1] != 3 or found.size == 0:
        raise ValueError(f"{where}: ns_coeffs must have shape (3,) or (steps, 3), got {found.shape}")
    return found


def orthogonalized(
    x: jax.Array,
    coefficients: jax.Array,
    steps: int = 5,
    preconditioning: Preconditioning = "frobenius",
    eps: Any = 1e-8,
) -> jax.Array:
    """An approximation of U Vᴴ for matrices x = U S Vᴴ in the last two axes, in the dtype of `x`.

    ```
    X = x / (size + eps), transposed if tall        A = X Xᴴ        X = a X + (b A + c A²) X, `steps` times
    ```

    Args:
      coefficients: (a, b, c), or one row of them for each step; `steps` is then ignored.
      preconditioning: how the singular values are brought to at most 1. The size is the norm "frobenius", "spectral"
        (exact, by singular values) or "schatten" (the 4-norm of the singular values); "aol" divides each row of the
        smaller side by the root of its sum in |X Xᴴ|. This changes the singular vectors: the result is near U Vᴴ only.
    """
    given, tall = x, x.shape[-2] > x.shape[-1]
    x = whole_in_loop(x, 2)
    x = _transposed(x) if tall else x
    x = _preconditioned(x, preconditioning, eps)

    def step(x: jax.Array, abc: jax.Array) -> tuple[jax.Array, None]:
        a, b, c = (y.astype(x.dtype) for y in abc)
        square = _product(x, _transposed(x))
        polynomial = b * square + c * _product(square, square)
        return whole_in_loop(a * x + _product(polynomial, x), 2), None

    rows = coefficients if coefficients.ndim == 2 else jnp.broadcast_to(coefficients[None], (steps, 3))
    x = whole_in_loop(jax.lax.scan(step, x, rows)[0], 2)
    return laid_like(_transposed(x) if tall else x, given)


def _preconditioned(x: jax.Array, preconditioning: str, eps: Any) -> jax.Array:
    axes = (-2, -1)
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0)
    unit = safe_divide(x, largest.astype(x.dtype))  # so that squares neither overflow nor underflow
    if preconditioning == "frobenius":
        size = safe_sqrt(jnp.sum(abs_sq(unit), axis=axes, keepdims=True))
    elif preconditioning == "spectral":
        size = jnp.linalg.svd(unit, compute_uv=False)[..., :1, None]
    elif preconditioning == "schatten":
        square = _product(unit, _transposed(unit))
        size = safe_sqrt(safe_sqrt(jnp.sum(abs_sq(square), axis=axes, keepdims=True)))
    else:
        sums = jnp.sum(jnp.abs(_product(unit, _transposed(unit))), axis=-1, keepdims=True)
        size = safe_sqrt(sums)
    size = size * largest + eps
    return safe_divide(x, size.astype(x.dtype))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    # Products of float32 stay in float32, also on devices that round to bfloat16 by default.
    precision = jax.lax.Precision.HIGHEST if a.dtype.itemsize >= 4 else jax.lax.Precision.DEFAULT
    return jnp.matmul(a, b, precision=precision)


def _transposed(x: jax.Array) -> jax.Array:
    return jnp.conj(jnp.swapaxes(x, -1, -2))
