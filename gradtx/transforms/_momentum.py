# SPDX-License-Identifier: Apache-2.0
"""Momentum in all its forms, as one rule with options."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._operations import add, multiply
from gradtx.core._ranges import DType, Fraction, Momentum
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates
from gradtx.numerics._averages import correction, zeros_like


class TraceState(NamedTuple):
    """The accumulated gradients."""

    trace: Updates


class ScaleByMomentumState(NamedTuple):
    """The number of updates made, and the velocity."""

    count: jax.Array
    velocity: Updates


@transformation
def trace(decay: Momentum, nesterov: bool = False, accumulator_dtype: DType = None) -> GradientTransformationExtraArgs:
    """v = decay v + g; u = v, or with Nesterov's momentum u = decay v + g.

    It is `scale_by_momentum` without options, with Optax's name and state. With the learning rate before it
    (`chain(scale_by_lr(a), trace(r))`) it is the velocity form v = r v + a g, p = p - v.

    Args:
      accumulator_dtype: the dtype in which v is stored; None for at least float32.
    """

    def update(g, v, p, t):
        v = add(multiply(decay, v), g)
        return add(multiply(decay, v), g) if nesterov else v, v

    return per_parameter(lambda p: zeros_like(p, accumulator_dtype), update, TraceState)


@transformation
def scale_by_momentum(
    decay: Momentum = 0.9,
    dampening: Fraction = 0.0,
    *,
    averaged: bool = False,
    nesterov: bool = False,
    bias_correction: bool = False,
    dampen_first: bool = True,
    accumulator_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """v = decay v + (1 - dampening) g; u = v, or with Nesterov's momentum u = decay v + (1 - dampening) g.

    With the learning rate after it, this is PyTorch's and TensorFlow's momentum; with the learning rate before it, the
    velocity form.

    Args:
      dampening: in [0, 1].
      averaged: True for a moving average: uses `decay` as the dampening.
      bias_correction: whether to divide the average by 1 - decay^t, its total weight so far (with `nesterov`, v by
        1 - decay^(t+1) and g by 1 - decay^t, as in NAdam). Needs `averaged`.
      dampen_first: False leaves the first gradient undampened, as PyTorch does.
      accumulator_dtype: the dtype in which v is stored; None for at least float32.

    References: Polyak 1964; Nesterov 1983; Sutskever et al. 2013.
    """
    if bias_correction and not averaged:
        raise ValueError("scale_by_momentum: bias_correction=True needs averaged=True; a sum of gradients has no bias")
    if bias_correction and not dampen_first:
        raise ValueError("scale_by_momentum: bias_correction=True needs dampen_first=True; the correction assumes it")

    def shared(t, total):
        weight = 1 - (decay if averaged else dampening)
        first = weight if dampen_first else jnp.where(t == 1, 1.0, weight)
        if not bias_correction:
            return first, 1.0, 1.0
        later = correction(decay, t + 1) if nesterov else correction(decay, t)
        return first, later, correction(decay, t)

    def update(g, v, p, t, common):
        weight, of_v, of_g = common
        v = decay * v + weight * g
        return decay * v * of_v + weight * g * of_g if nesterov else v * of_v, v

    return per_parameter(lambda p: zeros_like(p, accumulator_dtype), update, ScaleByMomentumState, shared=shared)
