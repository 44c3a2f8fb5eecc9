# SPDX-License-Identifier: Apache-2.0
"""Scaling gradients inside a model, during differentiation."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._ranges import Numbers, Range, check_argument


@checked
def scale_gradient(inputs: Any, scale: Numbers) -> Any:
    """Returns the inputs, but multiplies their derivatives by `scale`; for use inside a loss.

    A scale of 0 stops the gradient, even an infinite one; a negative scale reverses it. This holds in forward and
    reverse mode and for every order of derivative; the derivative with respect to `scale` is 0.

    Args:
      inputs: a tree; leaves that are not floating-point or complex pass.
      scale: a number or a scalar array, traced or not.

    Reference: Ganin and Lempitsky 2015, arXiv:1409.7495 (the reversal layer).
    """
    if callable(scale) or jnp.ndim(scale) != 0:
        raise TypeError(f"scale_gradient: scale must be a number or a scalar array, got {scale!r}")
    factor = check_argument("scale_gradient", "scale", scale, Range(), optional=False)

    def one(x: Any) -> Any:
        return _scaled(x, jnp.asarray(factor)) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x

    return jax.tree.map(one, inputs)


@jax.custom_jvp
def _scaled(x: Any, scale: jax.Array) -> Any:
    return x


@_scaled.defjvp
def _scaled_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x, scale), (dx, _) = primals, tangents
    wide, factor = widen((dx, scale), compute_dtype(dx))
    with promotion(wide):
        product = wide * factor
    # Selected by `where`, because infinity times 0 is NaN.
    return _scaled(x, scale), jnp.where(factor == 0, jnp.zeros([], wide.dtype), product).astype(dx.dtype)
