# SPDX-License-Identifier: Apache-2.0
"""GaLore: any optimizer in a low-rank subspace of each matrix."""

from collections.abc import Callable
from typing import Any, Literal

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, PositiveInt, Real
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation
from gradtx.core._types import Params, ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._low_rank import low_rank
from gradtx.wrappers._masked import MaskOfParams


@transformation
def scale_by_galore(
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    base_optimizer: Transformation | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    *,
    side: Literal["larger", "smaller"] = "larger",
) -> GradientTransformationExtraArgs:
    """An optimizer on gradients projected to their leading singular vectors, and its updates projected back:

    ```
    P = the `rank` leading left singular vectors of g, at the first step and every `update_proj_gap` steps
    u = scale P base(Pᵀg)
    ```

    Args:
      rank: the number of columns of P, at most the smaller side of the matrix.
      update_proj_gap: the number of steps between two computations of P.
      scale: the factor of u for projected matrices.
      base_optimizer: a stage without learning rate; None for `scale_by_adam()`. It also runs on all other parameters.
      weight_dimension_numbers: a tree of `GaLoreDimensionNumbers` like the parameters (or a prefix, or a function
        from them to it), with None where nothing is projected. By default exactly the arrays with two axes are.
      side: whether P shortens the larger or the smaller side of a matrix. "smaller" is the paper's choice; "larger",
        that of Optax and of the authors' option `reverse_std`, needs less memory.

    Reference: Zhao et al. 2024, arXiv:2403.03507.
    """
    base = scale_by_adam() if base_optimizer is None else base_optimizer
    return low_rank(base, rank, update_proj_gap, scale, weight_dimension_numbers, side=side)


@transformation
def galore(
    learning_rate: ScalarOrSchedule,
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    base_optimizer: Transformation | None = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    *,
    side: Literal["larger", "smaller"] = "larger",
) -> GradientTransformationExtraArgs:
    """GaLore: Adam, or another optimizer, with its state in a low-rank subspace.

    See `scale_by_galore` for the formula. The authors use a scale of 0.25. The weight decay is decoupled and not
    projected.

    Args:
      rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers, side: see `scale_by_galore`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Zhao et al. 2024, arXiv:2403.03507.
    """
    return chain(
        scale_by_galore(rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers, side=side),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
