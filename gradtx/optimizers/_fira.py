# SPDX-License-Identifier: Apache-2.0
"""Fira: full-rank updates from an optimizer in a low-rank subspace."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Limit, NonNegative, PositiveInt, Real
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation
from gradtx.core._types import Params, ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._low_rank import LowRankState, Projected, Projecting, on_projections
from gradtx.wrappers._masked import MaskOfParams


@transformation
def scale_by_fira(
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    base_optimizer: Transformation | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    *,
    growth: Limit = 1.01,
    scaling: Literal["channel", "tensor"] = "channel",
    side: Literal["larger", "smaller"] = "smaller",
) -> GradientTransformationExtraArgs:
    """GaLore plus the rest of the gradient, which is scaled as the base optimizer scales the projected part:

    ```
    R = Pᵀg            N = base(R)            S = (g - P R) ‖N‖ / ‖R‖
    S = S min(1, growth ‖S before‖ / ‖S‖)     u = scale (P N + S)
    ```

    Args:
      rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers: see `scale_by_galore`.
      growth: the largest factor by which the norm of S may grow from step to step.
      scaling: whether ‖N‖ / ‖R‖ is taken for each channel (column of R) or for the whole matrix.
      side: whether P shortens the larger or the smaller side of a matrix.

    Reference: Chen et al. 2024, arXiv:2410.01623.
    """
    base = scale_by_adam() if base_optimizer is None else base_optimizer
    how, numbers = Projecting(rank, side, None, scaling), weight_dimension_numbers
    return on_projections("scale_by_fira", base, _with_rest, LowRankState, how, update_proj_gap, scale, numbers, growth)


def _with_rest(m: Projected) -> tuple[jax.Array, list]:
    rest, norm = m.limited((m.g - m.back(m.low)) * m.gain())
    return m.back(m.new) + rest, norm


@transformation
def fira(
    learning_rate: ScalarOrSchedule,
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    base_optimizer: Transformation | None = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    *,
    growth: Limit = 1.01,
    scaling: Literal["channel", "tensor"] = "channel",
    side: Literal["larger", "smaller"] = "smaller",
) -> GradientTransformationExtraArgs:
    """Fira: Adam, or another optimizer, with its state in a low-rank subspace and updates of full rank.

    See `scale_by_fira` for the formula.

    Args:
      rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers: see `scale_by_galore`.
      mask: where to decay, see `add_decayed_weights`.
      growth, scaling, side: see `scale_by_fira`.

    Reference: Chen et al. 2024, arXiv:2410.01623.
    """
    numbers = weight_dimension_numbers
    return chain(
        scale_by_fira(rank, update_proj_gap, scale, base_optimizer, numbers, growth=growth, scaling=scaling, side=side),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
