# SPDX-License-Identifier: Apache-2.0
"""SGD-SaI: momentum with a constant factor for each parameter, which its first gradient determines."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._momentum import scale_by_momentum
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleBySNRState(NamedTuple):
    """One factor for each parameter; 0 until its first gradient that is not 0."""

    snr: Any


@transformation
def scale_by_initial_snr(eps: NonNegative = 1e-8) -> GradientTransformationExtraArgs:
    """u = g ‖g_1‖ / (std(g_1) + eps), where g_1 is the first gradient of the parameter that is not 0.

    The standard deviation is that of the n elements of g_1, with n - 1 as its denominator, as in the authors' code. If
    it is 0, as for every scalar, the factor is sqrt(n), about the smallest that others have.

    Reference: Xu et al. 2024, arXiv:2412.11768.
    """

    def update(g, snr, p, t):
        size = max(reductions.size(g), 1.0)
        deviation = safe_sqrt(reductions.total(abs_sq(g - reductions.total(g) / size)) / max(size - 1, 1.0))
        norm = safe_sqrt(reductions.total(abs_sq(g)))
        now = jnp.where(deviation > 0, safe_divide(norm, deviation + eps), jnp.where(norm > 0, size**0.5, 0.0))
        snr = jnp.where(snr > 0, snr, now)
        return snr * g, snr

    return per_parameter(lambda p: jnp.zeros([], jnp.real(p).dtype), update, ScaleBySNRState)


@transformation
def sgd_sai(
    learning_rate: ScalarOrSchedule,
    momentum: Decay = 0.9,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """SGD-SaI: p = p - learning_rate (snr m + weight_decay p), where m averages g and snr is constant.

    Each parameter has its own snr, see `scale_by_initial_snr`. The average starts at the first gradient, as in the
    authors' code. The state is half of Adam's.

    Args:
      mask: where to decay, see `add_decayed_weights`.

    Reference: Xu et al. 2024, arXiv:2412.11768.
    """
    return chain(
        scale_by_initial_snr(eps),
        scale_by_momentum(momentum, averaged=True, dampen_first=False),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
