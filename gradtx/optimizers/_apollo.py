# SPDX-License-Identifier: Apache-2.0
"""APOLLO: gradients scaled by channel or by tensor, with factors that an optimizer finds on a random projection."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Limit, NonNegative, NonNegativeInt, PositiveInt, Real
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation
from gradtx.core._types import Params, ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._low_rank import LowRankState, Projected, Projecting, on_projections
from gradtx.wrappers._masked import MaskOfParams


@transformation
def scale_by_apollo(
    rank: PositiveInt = 256,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    base_optimizer: Transformation | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    *,
    growth: Limit = 1.01,
    scaling: Literal["channel", "tensor"] = "channel",
    side: Literal["larger", "smaller"] = "smaller",
    projection: Literal["random", "svd"] = "random",
    seed: NonNegativeInt = 0,
) -> GradientTransformationExtraArgs:
    """Full-rank gradients, scaled as an optimizer scales a random projection of them:

    ```
    R = Pᵀg, the entries of P normal with variance 1 / rank, drawn anew every `update_proj_gap` steps
    N = base(R)                u = g ‖N‖ / ‖R‖
    u = scale u min(1, growth ‖u before‖ / ‖u‖)
    ```

    P is not stored: the seed, the number of redraws and the index of the leaf determine it.

    Args:
      rank: the number of columns of P, at most the smaller side of the matrix.
      update_proj_gap: the number of steps between redraws of P.
      scale: the factor of u for projected matrices; its square is what the authors' code calls scale.
      base_optimizer, weight_dimension_numbers: see `scale_by_galore`.
      growth: the largest factor by which the norm of an update may grow from step to step.
      scaling: whether ‖N‖ / ‖R‖ is taken for each channel (column of R) or for the whole matrix.
      side: whether P shortens the larger or the smaller side of a matrix.
      projection: "svd" takes the leading singular vectors of g for P, as GaLore does, and stores them.

    Reference: Zhu et al. 2024, arXiv:2412.05270.
    """
    base = scale_by_adam() if base_optimizer is None else base_optimizer
    how, numbers = Projecting(rank, side, None if projection == "svd" else seed, scaling), weight_dimension_numbers
    return on_projections("scale_by_apollo", base, _scaled, LowRankState, how, update_proj_gap, scale, numbers, growth)


def _scaled(m: Projected) -> tuple[jax.Array, list]:
    return m.limited(m.g * m.gain())


@transformation
def apollo(
    learning_rate: ScalarOrSchedule,
    rank: PositiveInt = 256,
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
    seed: NonNegativeInt = 0,
) -> GradientTransformationExtraArgs:
    """APOLLO: one adaptive learning rate for each channel of a matrix, estimated in few dimensions; Adam for the rest.

    See `scale_by_apollo` for the formula.

    Args:
      rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers: see `scale_by_apollo`.
      mask: where to decay, see `add_decayed_weights`.
      growth, scaling, side: see `scale_by_apollo`.

    Reference: Zhu et al. 2024, arXiv:2412.05270.
    """
    options: dict[str, Any] = dict(growth=growth, scaling=scaling, side=side, seed=seed)
    return chain(
        scale_by_apollo(rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers, **options),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )


@transformation
def apollo_mini(
    learning_rate: ScalarOrSchedule,
    rank: PositiveInt = 1,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 128**0.5,
    base_optimizer: Transformation | None = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    *,
    growth: Limit = 1.01,
    side: Literal["larger", "smaller"] = "smaller",
    seed: NonNegativeInt = 0,
) -> GradientTransformationExtraArgs:
    """APOLLO-Mini: one adaptive learning rate for each matrix, from a projection of rank 1; about the memory of `sgd`.

    Args:
      rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers: see `scale_by_apollo`.
      mask: where to decay, see `add_decayed_weights`.
      growth, side: see `scale_by_apollo`.

    Reference: Zhu et al. 2024, arXiv:2412.05270.
    """
    return apollo(
        learning_rate, rank, update_proj_gap, scale, base_optimizer, weight_decay, mask, weight_dimension_numbers,
        growth=growth, scaling="tensor", side=side, seed=seed,
    )  # fmt: skip  # by position, in the order of the signature
