# SPDX-License-Identifier: Apache-2.0
"""Wrappers that compare each element of an update with the gradient from which it was made.

They are wrappers because a stage of a chain sees only the output of the stage before it, not the gradient. They
remember nothing, so their state is that of the inner transformation.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Inner, Transformation, as_inner
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._safe import abs_sq, safe_sqrt


class _Inner(NamedTuple):
    u: Updates


def _compared(
    where: str, inner: Any, f: Callable[[jax.Array, jax.Array], jax.Array], counts: bool = False
) -> GradientTransformationExtraArgs:
    """`inner` with f(g, u) in place of its update u; `counts` says that f counts elements of the whole."""
    tx = as_inner(f"{where}: inner", inner)
    # The lift maps over gradients and slots in parallel; here the updates are passed as a slot.
    both = Inner(per_parameter(None, lambda g, u, p, t: (f(g, u), u), _Inner))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        if counts:
            check_said(where, params)
        inner_updates, state = tx.update(updates, state, params, **extra)
        return both.update(updates, _Inner(inner_updates))[0], state

    return GradientTransformationExtraArgs(tx.init, update, parts=lambda state: {"": (inner, state)})


@transformation
def cautious(
    inner: Transformation, normalization: Literal["count", "mean", "none"] = "count", *, descent: bool = False
) -> GradientTransformationExtraArgs:
    """Sets elements of the inner update to 0 whose sign differs from the gradient's: mask = 1 where u g > 0, else 0.

    ```
    count: u = u mask n / (Σ mask + 1), for n elements       (the paper's algorithm)
    mean:  u = u mask / max(Σ mask / n, 0.001)               (the authors' code)
    none:  u = u mask
    ```

    Args:
      inner: a stage such as `scale_by_adam()`, whose updates have the sign of gradients.
      normalization: how the kept elements are scaled up for the others, see above.
      descent: True if the updates have the opposite sign, as those of a whole recipe such as `adam(1e-3)`.

    Reference: Liang et al. 2024, arXiv:2411.16085.
    """

    def masked_update(g: jax.Array, u: jax.Array) -> jax.Array:
        # The product of the signs, since g * u may underflow.
        agreement = jnp.real(jnp.conj(jnp.sign(g)) * jnp.sign(u))
        mask = (agreement < 0 if descent else agreement > 0).astype(agreement.dtype)
        if normalization == "count":
            return u * mask * (reductions.size(mask) / (reductions.total(mask) + 1))
        if normalization == "mean":
            return u * mask / jnp.maximum(reductions.total(mask) / max(reductions.size(mask), 1.0), 1e-3)
        return u * mask

    return _compared("cautious", inner, masked_update, counts=normalization != "none")


@transformation
def with_gradient_signs(inner: Any, *, descent: bool = False) -> GradientTransformationExtraArgs:
    """u = |u| sign(g): the magnitudes of the inner update with the signs of the gradient (Grams).

    Args:
      inner: a stage such as `scale_by_adam()`.
      descent: True for the opposite signs, for a whole recipe such as `adam(1e-3)`.

    Reference: Cao et al. 2024, arXiv:2412.17107.
    """

    def signed(g: jax.Array, u: jax.Array) -> jax.Array:
        size = safe_sqrt(abs_sq(u)) if jnp.iscomplexobj(u) else jnp.abs(u)
        return -size * jnp.sign(g) if descent else size * jnp.sign(g)

    return _compared("with_gradient_signs", inner, signed)
