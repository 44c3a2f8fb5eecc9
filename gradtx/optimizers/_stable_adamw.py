# SPDX-License-Identifier: Apache-2.0
"""StableAdamW: AdamW with Adafactor's clipping of the update."""

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, Limit, NonNegative, is_number
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, root_mean_square, safe_divide, safe_sqrt, shrink_factor
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.transforms._scaling import scale_by_lr
from gradtx.wrappers._masked import MaskOfParams, masked, others


@transformation
def scale_by_stable_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    threshold: Limit = 1.0,
    mu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """Adam's direction, smaller where the second moment lags behind the gradient:

    ```
    mu = b1 mu + (1 - b1) g       nu = b2 nu + (1 - b2) g²       m, v = mu / (1 - b1^t), nu / (1 - b2^t)
    u  = (m / (sqrt(v) + eps) + weight_decay p) min(1, threshold / RMS(g / max(sqrt(v), eps)))
    ```

    where RMS is the root mean square over one parameter. `chain(scale_by_adam(), clip_by_block_rms(1.0))` clips by the
    RMS of Adam's update instead, as some libraries do.

    Args:
      weight_decay: shrinks together with the update, since it is the learning rate that the paper clips.
      threshold: the largest RMS at which the update is not made smaller.
      mu_dtype: the dtype in which mu is stored; None for at least float32.

    Reference: Wortsman et al. 2023, arXiv:2304.13013.
    """

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, real=True)

    def shared(t, total):
        return correction(b1, t), correction(b2, t)

    def update(g, slots, p, t, corrections):
        (mu, nu), (of_mu, of_nu) = slots, corrections
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        root = safe_sqrt(of_nu * nu)
        factor = shrink_factor(root_mean_square(safe_divide(g, jnp.maximum(root, eps)), threshold), threshold)
        decay = 0 if p is None else weight_decay * p
        return factor * (safe_divide(of_mu * mu, root + eps) + decay), (mu, nu)

    decays = not is_number(weight_decay) or weight_decay > 0
    return per_parameter(init, update, ScaleByAdamState, shared=shared, needs_params=decays)


@transformation
def stable_adamw(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-6,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 1e-2,
    mask: MaskOfParams | None = None,
    *,
    threshold: Limit = 1.0,
) -> GradientTransformationExtraArgs:
    """StableAdamW: AdamW whose learning rate shrinks, parameter by parameter, when gradients suddenly grow.

    See `scale_by_stable_adam` for the formula. It replaces gradient clipping.

    Args:
      mask: where to decay, see `add_decayed_weights`.
      threshold: the largest RMS at which the update is not made smaller, see `scale_by_stable_adam`.

    Reference: Wortsman et al. 2023, arXiv:2304.13013.
    """
    decaying = scale_by_stable_adam(b1, b2, eps, weight_decay, threshold, mu_dtype)
    if mask is None:
        return chain(decaying, scale_by_lr(learning_rate))
    plain = scale_by_stable_adam(b1, b2, eps, 0.0, threshold, mu_dtype)
    return chain(masked(decaying, mask), masked(plain, others(mask)), scale_by_lr(learning_rate))
