# SPDX-License-Identifier: Apache-2.0
"""Averages x that are not stored, as they follow from z and the parameters y = mu x + (1 - mu) z."""

from typing import Any

import jax

from gradtx.core._dtypes import compute_dtype, promotion, widen


def average_behind(y: jax.Array, z: jax.Array, mu: Any) -> jax.Array:
    """The x for which y = mu x + (1 - mu) z, in at least float32."""
    wide_y, wide_z, mu = widen((y, z, mu), compute_dtype(y, z))
    with promotion(wide_y):
        return wide_z + (wide_y - wide_z) / mu


def averaged_step(u: jax.Array, y: jax.Array, z: jax.Array, weight: Any, old_mu: Any, mu: Any) -> tuple:
    """(y' - y, z'): the step of y when z moves by u and x moves the fraction `weight` of its way to z'; and z'.

    Computed from the differences of the three, which are small, so that no digits of the parameters are lost:

    ```
    z' = z + u      x' = x + weight (z' - x)      y = old_mu x + (1 - old_mu) z      y' = mu x' + (1 - mu) z'
    ```
    """
    x_minus_z = (y - z) / old_mu
    return mu * weight * (u - x_minus_z) + (1 - mu) * u + (mu - old_mu) * x_minus_z, z + u
