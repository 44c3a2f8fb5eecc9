# SPDX-License-Identifier: Apache-2.0
"""DoG: the learning rate is the distance from the start over the root of the sum of squared gradient norms."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._combine import chain, identity
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import DType, NonNegative, Positive, Real
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule
from gradtx.numerics._averages import copy_of
from gradtx.numerics._ratios import l2_norm
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams

InitStep = Literal["heuristic", "distance", "learning_rate"]


class DoGState(NamedTuple):
    """Whether no update was made yet, the initial parameters, the largest distance from them, and the sum of ‖g‖²."""

    is_init_step: jax.Array
    init_params: Params
    max_dist: jax.Array
    sum_sq_norm_grads: jax.Array


class ScaleByDistanceOverGradientsState(NamedTuple):
    """For each parameter, the largest distance from its initial value, the sum of ‖g‖² (shape (1,)), and that value."""

    max_dist: Params
    grad_sum_of_squares: Params
    init_params: Params


@transformation
def scale_by_dog(
    init_step: InitStep = "heuristic", init_value: Positive = 1e-6, eps: NonNegative = 1e-8
) -> GradientTransformationExtraArgs:
    """DoG's step from the initial parameters p_1, with all norms over all parameters together:

    ```
    r = max(r, ‖p - p_1‖)        G = G + ‖g‖²
    u = g r / sqrt(G + eps)
    ```

    Args:
      init_step: what `init_value` sets for the first step: r ("distance"), r / (1 + ‖p_1‖) ("heuristic") or the factor
        of g ("learning_rate").
      init_value: the number that is set, small in comparison with the distance to the solution.
      eps: added inside the root.

    Reference: Ivgi, Hinder and Carmon 2023, arXiv:2302.12022.
    """

    def measure(g, first, p, t, memory):
        return jnp.sum(abs_sq(g)), jnp.sum(abs_sq(p - first)), jnp.sum(abs_sq(first))

    def shared(t, total, memory):
        of_g, moved, of_first = total
        starts = memory["is_init_step"]
        start = {"heuristic": init_value * (1 + safe_sqrt(of_first)), "distance": init_value, "learning_rate": 0.0}
        r = jnp.maximum(jnp.where(starts, start[init_step], memory["max_dist"]), safe_sqrt(moved))
        accumulated = memory["sum_sq_norm_grads"] + of_g
        factor = safe_divide(r, safe_sqrt(accumulated + eps))
        if init_step == "learning_rate":
            factor = jnp.where(starts, init_value, factor)
        return factor, {"is_init_step": False, "max_dist": r, "sum_sq_norm_grads": accumulated}

    def update(g, first, p, t, factor):
        return factor * g, first

    return per_parameter(
        jnp.copy,
        update,
        DoGState,
        measure=measure,
        shared=shared,
        memory=lambda: {"is_init_step": True, "max_dist": 0.0, "sum_sq_norm_grads": 0.0},
        needs_params=True,
    )


@transformation
def scale_by_distance_over_gradients(
    reps_rel: Positive = 1e-6, eps: NonNegative = 1e-8, param_dtype: DType = jnp.float32, global_scale: Real = 1.0
) -> GradientTransformationExtraArgs:
    """L-DoG's step: DoG for each parameter p by itself, with an initial r of reps_rel (1 + ‖p_1‖):

    ```
    r = max(r, ‖p - p_1‖)        G = G + ‖g‖²
    u = global_scale g r / sqrt(G + eps)
    ```

    Args:
      reps_rel: the initial r, relative to 1 + ‖p_1‖; p_1 is the initial parameter.
      eps: added inside the root.
      param_dtype: the dtype in which p_1 is stored; None for at least float32.
      global_scale: the factor of all updates.

    Reference: Ivgi, Hinder and Carmon 2023, arXiv:2302.12022 (layer-wise DoG).
    """

    def init(p):
        # The sum has an axis of length 1, as in Optax, so that states can be exchanged.
        return reps_rel * (1 + l2_norm(p)), jnp.zeros(1, jnp.real(p).dtype), copy_of(p, param_dtype)

    def update(g, slots, p, t):
        r, accumulated, first = slots
        r = jnp.maximum(r, l2_norm(p - first))
        accumulated = accumulated + reductions.total(abs_sq(g))
        factor = global_scale * safe_divide(r, safe_sqrt(accumulated[0] + eps))
        return factor * g, (r, accumulated, first)

    return per_parameter(init, update, ScaleByDistanceOverGradientsState, needs_params=True)


@transformation
def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: tuple[InitStep, float] = ("heuristic", 1e-6),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative | None = None,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """DoG: gradient descent without a learning rate to tune, to be evaluated at an average of its parameters.

    See `scale_by_dog` for the formula.

    Args:
      learning_rate: the factor of DoG's step; 1 in the paper.
      init_step: the pair (`init_step`, `init_value`) of `scale_by_dog`; the authors use ("heuristic", 1e-4) with batch
        normalization.
      eps: added inside the root.
      weight_decay: weight_decay p is added to the gradient, as L2 regularization; None for none.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Ivgi, Hinder and Carmon 2023, arXiv:2302.12022.
    """
    if not (isinstance(init_step, tuple | list) and len(init_step) == 2):
        raise ValueError(f"dog: init_step must be a pair of a kind and a number, got {init_step!r}")
    return chain(
        identity() if weight_decay is None else add_decayed_weights(weight_decay, mask),
        scale_by_dog(*init_step, eps=eps),
        scale_by_lr(learning_rate),
    )
