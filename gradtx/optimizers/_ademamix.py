# SPDX-License-Identifier: Apache-2.0
"""AdEMAMix: Adam with a second, much slower average of the gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._counts import safe_increment
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByAdemamixState(NamedTuple):
    """The number of updates made, kept twice, the fast and the slow moving average of g, and that of |g|²."""

    count: jax.Array
    count_m2: jax.Array
    m1: Updates
    m2: Updates
    nu: Updates

    counts_from = {"count_m2": 0}


@transformation
def scale_by_ademamix(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 6.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """AdEMAMix's direction:

    ```
    m1 = b1 m1 + (1 - b1) g       m2 = b3 m2 + (1 - b3) g       nu = b2 nu + (1 - b2) g²
    u  = (m1 / (1 - b1^t) + alpha m2) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)
    ```

    Args:
      b3, alpha: the decay and the weight of the slow average m2, which has no bias correction. The paper warms both up
        in runs of fewer than about 1 / (1 - b3) steps: `ademamix_b3_schedule` and `ademamix_alpha_schedule`.
      mu_dtype: the dtype in which m1 and m2 are stored; None for at least float32.

    Reference: Pagliardini et al. 2024, arXiv:2409.03137.
    """

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, mu_dtype), zeros_like(p, real=True)

    def shared(t, total, memory):
        common = correction(b1, t), correction(b2, t)
        return common, {"count_m2": safe_increment(memory["count_m2"])}

    def update(g, slots, p, t, corrections):
        (m1, m2, nu), (of_m1, of_nu) = slots, corrections
        m1, m2, nu = ema(m1, g, b1), ema(m2, g, b3), ema(nu, abs_sq(g), b2)
        return safe_divide(of_m1 * m1 + alpha * m2, safe_sqrt(of_nu * nu + eps_root) + eps), (m1, m2, nu)

    # Optax counts twice; the second count is kept so that its checkpoints can be read.
    return per_parameter(
        init, update, ScaleByAdemamixState, shared=shared, memory=lambda: {"count_m2": jnp.zeros([], jnp.int32)}
    )


@transformation
def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 5.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """AdEMAMix: a fast and a slow average of the gradient together, with decoupled weight decay.

    See `scale_by_ademamix` for the formula and for the warm-ups of `b3` and `alpha`.

    Args:
      b3, alpha: the decay and the weight of the slow average.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Pagliardini et al. 2024, arXiv:2409.03137.
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
