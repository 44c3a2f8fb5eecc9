# SPDX-License-Identifier: Apache-2.0
"""AdaMod: Adam whose learning rate for each element is at most the average of those before."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._weight_decay import decay_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByAdaModState(NamedTuple):
    """The number of updates made, and the moving averages of g, of |g|² and of the learning rates of the elements."""

    count: jax.Array
    mu: Updates
    nu: Updates
    mean_rate: Updates


@transformation
def scale_by_adamod(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """AdaMod. The update is complete: it includes the sign and the learning rate, which is under the average s.

    ```
    mu = b1 mu + (1 - b1) g           nu = b2 nu + (1 - b2) g²
    eta = learning_rate / (sqrt(nu / (1 - b2^t)) + eps)
    s = b3 s + (1 - b3) eta           u = -min(eta, s) mu / (1 - b1^t)
    ```

    As s starts at 0, the first 1 / (1 - b3) steps are a warmup. In the authors' code the correction of mu is under the
    average too, and eps is added to the uncorrected root.

    Args:
      b3: the decay of the average of learning rates; 0 for Adam.
      mu_dtype: the dtype in which mu is stored; None for at least float32.

    Reference: Ding et al. 2019, arXiv:1910.12249.
    """

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, real=True), zeros_like(p, real=True)

    def shared(t, total):
        return learning_rate, correction(b1, t), correction(b2, t)

    def update(g, slots, p, t, common):
        (mu, nu, mean_rate), (rate, of_mu, of_nu) = slots, common
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        eta = safe_divide(rate, safe_sqrt(of_nu * nu) + eps)
        mean_rate = ema(mean_rate, eta, b3)
        return -jnp.minimum(eta, mean_rate) * of_mu * mu, (mu, nu, mean_rate)

    return per_parameter(init, update, ScaleByAdaModState, shared=shared)


@transformation
def adamod(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """AdaMod: Adam whose learning rates are bounded by their long-term average, which makes a warmup unnecessary.

    See `scale_by_adamod` for the formula.

    Args:
      b3: the decay of the average of learning rates, see `scale_by_adamod`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Ding et al. 2019, arXiv:1910.12249.
    """
    return chain(
        scale_by_adamod(learning_rate, b1, b2, b3, eps, mu_dtype),
        decay_weights(weight_decay, "decoupled", mask, learning_rate=learning_rate),
    )
