# SPDX-License-Identifier: Apache-2.0
"""SM3: AdaGrad with one accumulator for each index of each axis, not for each element."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, Fraction, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr


class ScaleBySM3State(NamedTuple):
    """For each parameter a list with one vector for each axis (one number, if it is a scalar), and the momentum."""

    mu: Updates
    nu: Updates


def _slices(shape: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each axis, the shape in which its accumulator broadcasts, and the other axes. A scalar is a slice itself."""
    axes = range(len(shape))
    own = [tuple(n if i == j else 1 for j, n in enumerate(shape)) for i in axes]
    return [(own[i], tuple(j for j in axes if j != i)) for i in axes] or [((), ())]


@transformation
def scale_by_sm3(b1: Decay = 0.9, b2: Fraction = 1.0, eps: NonNegative = 1e-8) -> GradientTransformationExtraArgs:
    """SM3-II's direction, with an accumulator mu for each slice (each index of each axis):

    ```
    s  = g² + (the least mu of the slices that the element is in)
    mu = (the greatest s in the slice)
    nu = b1 nu + (1 - b1) g / sqrt(s + eps)
    u  = nu
    ```

    Args:
      b2: 1 for a sum; below 1, s is a moving average: s = b2 (least mu) + (1 - b2) g².

    Reference: Anil et al. 2019, arXiv:1901.11150, algorithm SM3-II.
    """

    def init(p):
        real = zeros_like(p, real=True)
        return [reductions.largest(real, axis=others, initial=0.0) for _, others in _slices(p.shape)], zeros_like(p)

    def shared(t, total):
        return jnp.where(b2 == 1, 1.0, 1 - b2)

    def update(g, slots, p, t, weight):
        mu, nu = slots
        slices = _slices(g.shape)
        least = functools.reduce(jnp.minimum, [m.reshape(own) for m, (own, _) in zip(mu, slices, strict=True)])
        s = b2 * least + weight * abs_sq(g)
        mu = [reductions.largest(s, axis=others, initial=0.0) for _, others in slices]
        nu = ema(nu, safe_divide(g, safe_sqrt(s + eps)), b1)
        return nu, (mu, nu)

    return per_parameter(init, update, ScaleBySM3State, shared=shared)


@transformation
def sm3(learning_rate: ScalarOrSchedule, momentum: Decay = 0.9) -> GradientTransformationExtraArgs:
    """SM3: AdaGrad in the memory of momentum, with m + n accumulators for an m by n matrix.

    See `scale_by_sm3` for the formula.

    Reference: Anil et al. 2019, arXiv:1901.11150.
    """
    return chain(scale_by_sm3(momentum), scale_by_lr(learning_rate))
