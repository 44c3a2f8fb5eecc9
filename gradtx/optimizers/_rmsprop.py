# SPDX-License-Identifier: Apache-2.0
"""RMSProp: scaling by a moving root mean square, plain or centered."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain, identity
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, Momentum, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, one_minus_power, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._momentum import trace
from gradtx.transforms._scaling import scale_by_lr


class ScaleByRmsState(NamedTuple):
    """The moving average of |g|²."""

    nu: Updates


class ScaleByRmsWithCountState(NamedTuple):
    """`ScaleByRmsState` with the number of updates made, which bias correction needs."""

    count: jax.Array
    nu: Updates


class ScaleByRStdDevState(NamedTuple):
    """The moving averages of g and |g|²."""

    mu: Updates
    nu: Updates


class ScaleByRStdDevWithCountState(NamedTuple):
    """`ScaleByRStdDevState` with the number of updates made, which bias correction needs."""

    count: jax.Array
    mu: Updates
    nu: Updates


def _denominator(variance, eps, eps_in_sqrt):
    return safe_sqrt(variance + eps) if eps_in_sqrt else safe_sqrt(variance) + eps


def _weight(decay, bias_correction):
    """The `shared` of both rules: the number by which the averages are divided."""
    return lambda t, total: one_minus_power(decay, t) if bias_correction else 1.0


@transformation
def scale_by_rms(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformationExtraArgs:
    """nu = decay nu + (1 - decay) g²; u = g / sqrt(nu + eps), or g / (sqrt(nu) + eps).

    Args:
      initial_scale: the initial value of nu.
      eps_in_sqrt: whether eps is added inside the root or outside.
      bias_correction: whether to divide nu by 1 - decay^t.
    """

    def update(g, nu, p, t, weight):
        nu = ema(nu, abs_sq(g), decay)
        return safe_divide(g, _denominator(nu / weight, eps, eps_in_sqrt)), nu

    state = ScaleByRmsWithCountState if bias_correction else ScaleByRmsState
    shared = _weight(decay, bias_correction)
    return per_parameter(lambda p: zeros_like(p, real=True) + initial_scale, update, state, shared=shared)


@transformation
def scale_by_stddev(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformationExtraArgs:
    """`scale_by_rms` with the variance nu - mu² (at least 0) for nu, where mu = decay mu + (1 - decay) g.

    Args:
      initial_scale, eps_in_sqrt: see `scale_by_rms`.
      bias_correction: whether to divide mu and nu by 1 - decay^t.
    """

    def init(p):
        return zeros_like(p), zeros_like(p, real=True) + initial_scale

    def update(g, slots, p, t, weight):
        mu, nu = ema(slots[0], g, decay), ema(slots[1], abs_sq(g), decay)
        # Rounding can take the difference below zero, where the root would be NaN.
        variance = jnp.maximum(nu / weight - abs_sq(mu / weight), 0)
        return safe_divide(g, _denominator(variance, eps, eps_in_sqrt)), (mu, nu)

    state = ScaleByRStdDevWithCountState if bias_correction else ScaleByRStdDevState
    return per_parameter(init, update, state, shared=_weight(decay, bias_correction))


@transformation
def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Momentum | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> GradientTransformationExtraArgs:
    """RMSProp: p = p - learning_rate * g / sqrt(nu + eps), where nu is a moving average of g².

    Args:
      initial_scale, eps_in_sqrt, bias_correction: see `scale_by_rms`.
      centered: True subtracts from nu the square of the mean gradient (Graves 2013, arXiv:1308.0850).
      momentum: the decay of a sum of the steps, learning rate included, as in TensorFlow; None for no momentum.
      nesterov: Nesterov's form of that momentum.

    Reference: Tieleman and Hinton 2012, Coursera lecture 6.5.
    """
    if nesterov and momentum is None:
        raise ValueError("rmsprop: nesterov=True needs a momentum, got momentum=None")
    scaling = scale_by_stddev if centered else scale_by_rms
    return chain(
        scaling(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        scale_by_lr(learning_rate),
        identity() if momentum is None else trace(momentum, nesterov),
    )
