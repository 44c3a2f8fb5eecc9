# SPDX-License-Identifier: Apache-2.0
"""AdaBelief: steps scaled by how far the gradient lies from its moving average."""

from typing import NamedTuple

import jax

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import correction, ema, unbiased, weighted, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByBeliefState(NamedTuple):
    """The number of updates made, and the moving averages of g and |g - mu|²."""

    count: jax.Array
    mu: Updates
    nu: Updates


@transformation
def scale_by_belief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """AdaBelief's direction:

    ```
    mu = b1 mu + (1 - b1) g           nu = b2 nu + (1 - b2) (g - mu)² + eps_root
    u  = (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t)) + eps)
    ```

    Args:
      eps_root: added to nu at each step, so that it accumulates to eps_root / (1 - b2).
      nesterov: True takes the numerator of `scale_by_adam(nesterov=True)`.

    Reference: Zhuang et al. 2020, arXiv:2010.07468, algorithm 2.
    """

    def shared(t, total):
        return unbiased(b1, t, nesterov), correction(b2, t)

    def update(g, slots, p, t, corrections):
        (mu, nu), (of_mu, of_nu) = slots, corrections
        mu = ema(mu, g, b1)
        nu = ema(nu, abs_sq(g - mu), b2) + eps_root
        return safe_divide(weighted(mu, g, of_mu), safe_sqrt(of_nu * nu) + eps), (mu, nu)

    return per_parameter(lambda p: (zeros_like(p), zeros_like(p, real=True)), update, ScaleByBeliefState, shared=shared)


@transformation
def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
    weight_decay: NonNegative | None = None,
    weight_decay_mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """AdaBelief: Adam with the squared distance of g from its moving average in place of g².

    See `scale_by_belief` for the formula.

    Args:
      eps_root: added to nu at each step, see `scale_by_belief`.
      weight_decay: decoupled, as that of `adamw`; None for no stage of weight decay.
      weight_decay_mask: where to decay, see `add_decayed_weights`.

    Reference: Zhuang et al. 2020, arXiv:2010.07468.
    """
    decay = () if weight_decay is None else (add_decayed_weights(weight_decay, weight_decay_mask),)
    return chain(scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov), *decay, scale_by_lr(learning_rate))
