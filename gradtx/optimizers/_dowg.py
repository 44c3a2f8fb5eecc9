# SPDX-License-Identifier: Apache-2.0
"""DoWG: DoG whose gradients are weighted by the distance from the start at which they were taken."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain, identity
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class DoWGState(NamedTuple):
    """The initial parameters, the weighted sum of ‖g‖², and the largest squared distance from these parameters."""

    init_params: Params
    weighted_sq_norm_grads: jax.Array
    estim_sq_dist: jax.Array


@transformation
def scale_by_dowg(init_estim_sq_dist: Positive | None = None, eps: Positive = 1e-4) -> GradientTransformationExtraArgs:
    """DoWG's step from the initial parameters p_1, with all norms over all parameters together:

    ```
    r² = max(r², ‖p - p_1‖²)     v = v + r² ‖g‖²
    u = g r² / (sqrt(v) + eps)
    ```

    Args:
      init_estim_sq_dist: the initial r²; None for eps, as in the authors' code.

    Reference: Khaled, Mishchenko and Jin 2023, arXiv:2305.16284, algorithm 1.
    """

    def memory():
        start = eps if init_estim_sq_dist is None else init_estim_sq_dist
        return {"weighted_sq_norm_grads": 0.0, "estim_sq_dist": start}

    def measure(g, first, p, t, memory):
        return jnp.sum(abs_sq(g)), jnp.sum(abs_sq(p - first))

    def shared(t, total, memory):
        of_g, moved = total
        squared = jnp.maximum(memory["estim_sq_dist"], moved)
        v = memory["weighted_sq_norm_grads"] + squared * of_g
        factor = safe_divide(squared, safe_sqrt(v) + eps)
        return factor, {"weighted_sq_norm_grads": v, "estim_sq_dist": squared}

    def update(g, first, p, t, factor):
        return factor * g, first

    return per_parameter(jnp.copy, update, DoWGState, measure=measure, shared=shared, memory=memory, needs_params=True)


@transformation
def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: Positive | None = None,
    eps: Positive = 1e-4,
    weight_decay: NonNegative | None = None,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """DoWG: gradient descent without a learning rate to tune, with larger steps than `dog` for the same gradients.

    See `scale_by_dowg` for the formula.

    Args:
      learning_rate: the factor of DoWG's step; 1 in the paper.
      init_estim_sq_dist: the initial squared distance; None for eps.
      weight_decay: weight_decay p is added to the gradient, as L2 regularization; None for none.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Khaled, Mishchenko and Jin 2023, arXiv:2305.16284.
    """
    return chain(
        identity() if weight_decay is None else add_decayed_weights(weight_decay, mask),
        scale_by_dowg(init_estim_sq_dist, eps),
        scale_by_lr(learning_rate),
    )
