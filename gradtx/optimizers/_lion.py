# SPDX-License-Identifier: Apache-2.0
"""Lion: the sign of a momentum, or a smooth function in its place."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams

Mode = Literal["hard", "smooth", "refined"]


class ScaleByLionState(NamedTuple):
    """The number of updates made, and the moving average of g."""

    count: jax.Array
    mu: Updates


@transformation
def scale_by_lion(
    b1: Decay = 0.9, b2: Decay = 0.99, mu_dtype: DType = None, *, mode: Mode = "hard", smooth_beta: Positive = 1.0
) -> GradientTransformationExtraArgs:
    """u = f(b1 mu + (1 - b1) g); then mu = b2 mu + (1 - b2) g.

    Args:
      mu_dtype: the dtype in which mu is stored; None for at least float32.
      mode: "hard" for f = sign (0 at 0), "smooth" for tanh(smooth_beta x), "refined" for x clipped to [-1, 1]. Of
        complex numbers f changes the magnitude only.
      smooth_beta: the slope of f at 0 for "smooth"; the larger it is, the closer f is to the sign.

    References: Chen et al. 2023, arXiv:2302.06675, algorithm 2; Chen et al. 2023, arXiv:2310.05898 (other f).
    """

    def squash(c):
        if mode == "hard":
            return jnp.sign(c)
        if jnp.iscomplexobj(c):
            return jnp.sign(c) * squash(safe_sqrt(abs_sq(c)))
        return jnp.tanh(smooth_beta * c) if mode == "smooth" else jnp.clip(c, -1, 1)

    def update(g, mu, p, t):
        c = ema(mu, g, b1)
        return squash(c), ema(mu, g, b2)

    return per_parameter(lambda p: zeros_like(p, mu_dtype), update, ScaleByLionState)


@transformation
def lion(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 1e-3,
    mask: MaskOfParams | None = None,
    *,
    mode: Mode = "hard",
    smooth_beta: Positive = 1.0,
) -> GradientTransformationExtraArgs:
    """Lion: p = p - learning_rate (sign(b1 mu + (1 - b1) g) + weight_decay p).

    All elements move by the same amount: use a learning rate 3 to 10 times smaller than Adam's, and a weight decay as
    many times larger.

    Args:
      mask: where to decay, see `add_decayed_weights`.
      mode, smooth_beta: a smooth function in place of the sign, see `scale_by_lion`.

    Reference: Chen et al. 2023, arXiv:2302.06675.
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype, mode=mode, smooth_beta=smooth_beta),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
