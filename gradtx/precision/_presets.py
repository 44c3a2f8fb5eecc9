# SPDX-License-Identifier: Apache-2.0
"""Optimizers whose moments, or parameters too, are stored in few bits: chains of stages, storage and rounding."""

from typing import Any

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, NonNegative, NonNegativeInt, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.optimizers._lion import scale_by_lion
from gradtx.optimizers._muon import muon
from gradtx.precision._int8 import int8
from gradtx.precision._rounding_stages import error_bits
from gradtx.precision._stored import stored
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


def _second_moment(block: int) -> int8:
    return int8(block, signed=False, stochastic=True)


@transformation
def adamw8bit(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    mask: MaskOfParams | None = None,
    *,
    block: PositiveInt = 256,
    min_size: NonNegativeInt = 4096,
) -> GradientTransformationExtraArgs:
    """`adamw` with both moments in 8 bits: about 2.03 bytes of state for each parameter instead of 8.

    Both are rounded stochastically. Rounded to nearest, the second moment would stand still, as a step changes it by
    about a thousandth of itself, and the first would never return to 0 after gradients have become 0.

    Args:
      mask: where to decay, see `add_decayed_weights`.
      block: the number of elements that share a scale, along the last axis.
      min_size: parameters with fewer elements keep moments in float32.

    Reference: Dettmers et al. 2021, arXiv:2110.02861.
    """
    policy = {"mu": int8(block), "nu": _second_moment(block)}
    return chain(
        stored(scale_by_adam(b1, b2, eps), policy, min_size=min_size),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )


@transformation
def lion8bit(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    weight_decay: NonNegative = 1e-3,
    mask: MaskOfParams | None = None,
    *,
    block: PositiveInt = 256,
    min_size: NonNegativeInt = 4096,
) -> GradientTransformationExtraArgs:
    """`lion` with its moment in 8 bits: about 1.02 bytes of state for each parameter instead of 4.

    Args:
      mask: where to decay, see `add_decayed_weights`.
      block, min_size: as in `adamw8bit`.

    References: Chen et al. 2023, arXiv:2302.06675; Dettmers et al. 2021, arXiv:2110.02861.
    """
    return chain(
        stored(scale_by_lion(b1, b2), {"mu": int8(block)}, min_size=min_size),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )


@transformation
def muon8bit(
    learning_rate: ScalarOrSchedule,
    beta: Decay = 0.95,
    weight_decay: NonNegative = 0.0,
    *,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    consistent_rms: NonNegative | None = None,
    block: PositiveInt = 256,
    min_size: NonNegativeInt = 4096,
) -> GradientTransformationExtraArgs:
    """`muon` with its momentum and Adam's moments in 8 bits. For Muon's other options, use `stored` around `muon(...)`.

    Args:
      adam_b1, adam_b2, adam_weight_decay, adam_learning_rate, consistent_rms: see `muon`.
      block, min_size: as in `adamw8bit`.

    References: Jordan et al. 2024; Dettmers et al. 2021, arXiv:2110.02861.
    """
    inner = muon(
        learning_rate,
        beta=beta,
        weight_decay=weight_decay,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        adam_weight_decay=adam_weight_decay,
        adam_learning_rate=adam_learning_rate,
        consistent_rms=consistent_rms,
    )
    return stored(inner, {"mu": int8(block), "nu": _second_moment(block)}, min_size=min_size)


@transformation
def adamw_bf16(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    mask: MaskOfParams | None = None,
    *,
    block: PositiveInt = 256,
    min_size: NonNegativeInt = 4096,
) -> GradientTransformationExtraArgs:
    """`adamw8bit` for bfloat16 parameters with 8 more bits of precision each: 5.03 bytes for each parameter in all.

    Parameters and their error bits have 24 bits together, so that small steps add up; see `error_bits`. Float32
    parameters are updated as by `adamw8bit`.

    Args:
      mask: where to decay, see `add_decayed_weights`.
      block, min_size: as in `adamw8bit`.

    References: Gonzalez et al. 2026, arXiv:2602.23349; Dettmers et al. 2021, arXiv:2110.02861.
    """
    options: dict[str, Any] = {"mask": mask, "block": block, "min_size": min_size}
    return chain(adamw8bit(learning_rate, b1, b2, eps, weight_decay, **options), error_bits(8))
