# SPDX-License-Identifier: Apache-2.0
"""Descent by signs, of the gradient and of its moving average."""

import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.transforms._ema import ema
from gradtx.transforms._scaling import scale_by_lr


@transformation
def scale_by_sign() -> GradientTransformationExtraArgs:
    """u = sign(g): -1, 0 or 1, and for complex numbers g / |g|."""
    return per_parameter(None, lambda g, slots, p, t: (jnp.sign(g), slots))


@transformation
def sign_sgd(learning_rate: ScalarOrSchedule) -> GradientTransformationExtraArgs:
    """p = p - learning_rate * sign(g).

    Reference: Bernstein et al. 2018, arXiv:1802.04434, algorithm 1.
    """
    return chain(scale_by_sign(), scale_by_lr(learning_rate))


@transformation
def signum(
    learning_rate: ScalarOrSchedule, beta: Decay = 0.9, accumulator_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """m = beta m + (1 - beta) g; p = p - learning_rate * sign(m).

    Args:
      accumulator_dtype: the dtype in which m is stored; None for at least float32.

    Reference: Bernstein et al. 2018, arXiv:1802.04434, algorithm 2.
    """
    # A positive factor does not change a sign, so there is nothing to debias.
    return chain(ema(beta, False, accumulator_dtype), scale_by_sign(), scale_by_lr(learning_rate))
