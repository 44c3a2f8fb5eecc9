# SPDX-License-Identifier: Apache-2.0
"""Orthogonalization of matrices by Newton-Schulz iterations: products only, no decomposition.

The functions take one matrix, or a stack of matrices along any leading axes, which are computed at once.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._checked import checked
from gradtx.core._dtypes import widen
from gradtx.core._kinds import Tree
from gradtx.core._placement import laid_like, replicated, whole_in_loop
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

DION = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""A quintic for each of five steps, closer to 1 than `QUINTIC`."""

POLAR_EXPRESS8 = (
    (8.2051, -22.9019, 16.4607),
    (4.0664, -2.8612, 0.5184),
    (3.9096, -2.8234, 0.5250),
    (3.2856, -2.4153, 0.4853),
    (2.2779, -1.6198, 0.3985),
    (1.8726, -1.2307, 0.3585),
    (1.8564, -1.2132, 0.3568),
    (1.875, -1.25, 0.375),
)
"""Amsel et al. 2025 for eight steps, the safety factor included."""

CANS = (
    (8.4703, -25.1081, 18.6293),
    (4.1828, -3.1087, 0.5806),
    (3.9619, -2.9541, 0.5630),
    (3.2866, -2.4647, 0.5074),
    (2.2737, -1.6447, 0.4162),
)
"""Grishina et al. 2025, arXiv:2506.10935."""

AOL = (
    (4.0098, -7.0585, 2.4635),
    (3.4585, -5.5479, 2.5959),
    (2.7573, -3.2939, 1.4254),
    (2.7215, -3.0494, 1.3169),
)
"""For rows that "aol" has scaled, of which it is a part."""

CUBIC5 = (
    (3.3656576, -3.3420992, 0.0),
    (2.5744352, -1.4957376, 0.0),
    (2.5368962, -1.4312570, 0.0),
    (2.4418906, -1.2764040, 0.0),
    (2.2230472, -0.9630650, 0.0),
)
"""arXiv:2606.00371: cubics, which are less steep at 0."""

PRESETS = {
    "quintic": QUINTIC,
    "dion": DION,
    "quintic5": DION,
    "polar_express": POLAR_EXPRESS,
    "polar_express8": POLAR_EXPRESS8,
    "cans": CANS,
    "aol": AOL,
    "deepseek_v4": (QUINTIC,) * 8 + ((2.0, -1.5, 0.5),) * 2,
    "cubic5": CUBIC5,
    "exact": (),
}


def coefficients_of(where: str, coefficients: Any) -> np.ndarray:
    """The coefficients, of shape (3,) or (steps, 3), from the name of a preset, a triple or a sequence of triples.

    "exact" has no steps: shape (0, 3).
    """
    if isinstance(coefficients, str):
        if coefficients == "exact":
            return np.zeros((0, 3))
        if coefficients not in PRESETS:
            raise ValueError(f"{where}: ns_coeffs must be one of {tuple(PRESETS)} or numbers, got {coefficients!r}")
        coefficients = PRESETS[coefficients]
    try:
        found = np.asarray(coefficients, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{where}: ns_coeffs must be a triple of numbers or several, got {coefficients!r}") from None
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
      coefficients: (a, b, c), or one row of them for each step; `steps` is then ignored. Without rows, of shape (0, 3),
        the result is exact, by a singular value decomposition, and `preconditioning` is ignored too.
      preconditioning: how the singular values are brought to at most 1. The size is the norm "frobenius", "spectral"
        (exact, by singular values) or "schatten" (the 4-norm of the singular values); "aol" divides each row of the
        smaller side by the root of its sum in |X Xᴴ|. This changes the singular vectors: the result is near U Vᴴ only.
    """
    if coefficients.ndim == 2 and not coefficients.shape[0]:
        return _exact(x)
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


def _exact(x: jax.Array) -> jax.Array:
    """U Vᴴ over the singular values that are not 0 up to rounding."""
    wide = replicated(widen(x))  # decompositions are whole on each device
    largest = jnp.max(jnp.abs(wide), axis=(-2, -1), keepdims=True, initial=0)
    u, s, vt = jnp.linalg.svd(safe_divide(wide, largest.astype(wide.dtype)), full_matrices=False)
    kept = s > s[..., :1] * (max(x.shape[-2:]) * float(jnp.finfo(s.dtype).eps))
    return laid_like(_product(u * kept[..., None, :].astype(u.dtype), vt).astype(x.dtype), x)


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


@checked
def distance_from_orthogonal(updates: Tree) -> jax.Array:
    """How far matrices are from orthogonal ones: the largest ‖U Uᴴ - 1‖ / sqrt(k) over all matrices of a tree.

    k is the smaller side. It is 0 where all singular values are 1, and the root mean square of σ² - 1 in general. As a
    metric of Muon: `chain(scale_by_muon(), snapshot("orthogonality", numerics.distance_from_orthogonal), ...)`.

    Args:
      updates: a tree of matrices, or stacks of them, in the last two axes; leaves with fewer axes do not count.

    Raises:
      ValueError: if there is no matrix.
    """
    found = [_distance(x) for x in jax.tree.leaves(updates) if jnp.ndim(x) >= 2 and jnp.size(x)]
    if not found:
        raise ValueError("distance_from_orthogonal: there is no leaf with two axes or more")
    return jnp.max(jnp.stack(found))


def _distance(x: jax.Array) -> jax.Array:
    x = replicated(widen(x))
    x = _transposed(x) if x.shape[-2] > x.shape[-1] else x
    k = x.shape[-2]
    rest = _product(x, _transposed(x)) - jnp.broadcast_to(jnp.eye(k, dtype=x.dtype), (*x.shape[:-1], k))
    return jnp.max(jnp.sqrt(jnp.sum(abs_sq(rest), axis=(-2, -1)) / k)).astype(jnp.result_type(float))
