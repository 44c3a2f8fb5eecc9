# SPDX-License-Identifier: Apache-2.0
"""Gradients without the part that only scales the parameter."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Inner, as_inner
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._ratios import along, l2_norms
from gradtx.numerics._safe import euclidean_norm, safe_divide


def _orthogonal(g: jax.Array, slots: Any, p: Any, t: Any) -> tuple[jax.Array, Any]:
    if reductions.size(g) <= 1:
        return g, slots
    unit = safe_divide(p, euclidean_norm(p))
    rest = g - unit * along(g, unit)
    of_rest, of_g = l2_norms(rest, g)
    # Of a gradient along the parameter only rounding is left, which must not be scaled up to its norm.
    noise = 8 * float(jnp.finfo(of_g.dtype).eps) * of_g
    return rest * jnp.where(of_rest > noise, safe_divide(of_g, of_rest), 0), slots


_EACH = Inner(per_parameter(None, _orthogonal, needs_params=True))  # made once, so that it is compiled once


@transformation
def orthograd(inner: Any) -> GradientTransformationExtraArgs:
    """Gives `inner` gradients orthogonal to the parameters, of unchanged norm, against ever larger logits:

    ```
    r = g - p <p, g> / ‖p‖²        g = r ‖g‖ / ‖r‖
    ```

    The norms are those of one parameter; where r is 0, so is the new g. A parameter of one element, to which nothing
    else is orthogonal, keeps its gradient. Weight decay inside of `inner` still shrinks the parameters.

    Args:
      inner: the transformation, a whole recipe such as `adamw(1e-3)` too.

    Raises:
      ValueError: if `update` is called without parameters.

    Reference: Prieto et al. 2025, arXiv:2501.04697.
    """
    tx = as_inner("orthograd: inner", inner)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        if params is None:
            raise ValueError("orthograd: update needs the parameters: call update(updates, state, params)")
        check_said("orthograd", params)
        orthogonal, _ = _EACH.update(updates, (), params)
        return tx.update(orthogonal, state, params, **extra)

    return GradientTransformationExtraArgs(tx.init, update, parts=lambda state: {"": (inner, state)})
