# SPDX-License-Identifier: Apache-2.0
"""PolarGrad: the polar factor of the momentum times its nuclear norm."""

from collections.abc import Callable
from typing import Any

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._muon import matrices_and_rest, scale_by_muon
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


@transformation
def scale_by_polargrad(
    beta: Decay = 0.95,
    ns_coeffs: Any = "exact",
    *,
    ns_dtype: DType = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """The steepest descent in the spectral norm, of the length that belongs to it: `scale_by_muon` in one setting.

    ```
    mu = beta mu + (1 - beta) g        O = the polar factor of mu        u = ⟨mu, O⟩ O
    ```

    ⟨mu, O⟩ is the sum of the singular values, so that u vanishes with the gradient, unlike Muon's.

    Args:
      ns_coeffs, ns_dtype, weight_dimension_numbers: see `scale_by_muon`.

    Raises:
      ValueError: for a parameter that is no matrix and has no dimension numbers.

    Reference: Lau et al. 2025, arXiv:2505.21799.
    """
    return scale_by_muon(
        ns_coeffs,
        beta=beta,
        nesterov=False,
        adaptive=True,
        bias_correction=False,
        ns_dtype=ns_dtype,
        weight_dimension_numbers=weight_dimension_numbers,
    )


@transformation
def polargrad(
    learning_rate: ScalarOrSchedule,
    beta: Decay = 0.95,
    weight_decay: NonNegative = 0.0,
    ns_coeffs: Any = "exact",
    *,
    ns_dtype: DType = None,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
) -> GradientTransformationExtraArgs:
    """PolarGrad on matrices, Adam on the rest, as `muon` divides them; both with decoupled weight decay.

    See `scale_by_polargrad` for the formula. There is no factor for the shape of a matrix.

    Args:
      ns_coeffs, ns_dtype: see `scale_by_muon`.
      mask: where to decay among the matrices; the rest has `adam_weight_decay`.
      weight_dimension_numbers: as `muon_weight_dimension_numbers` of `muon`.
      adam_learning_rate: None for `learning_rate`.

    Reference: Lau et al. 2025, arXiv:2505.21799.
    """
    of_matrices = chain(
        scale_by_polargrad(beta, ns_coeffs, ns_dtype=ns_dtype, weight_dimension_numbers=weight_dimension_numbers),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    of_rest = adamw(rate, adam_b1, adam_b2, eps_root=adam_eps_root, weight_decay=adam_weight_decay)
    return matrices_and_rest(of_matrices, of_rest, weight_dimension_numbers)
