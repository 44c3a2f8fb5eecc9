# SPDX-License-Identifier: Apache-2.0
"""Adafactor: the second moment of a matrix as two factors, with one number for each row and for each column."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._operations import add, maximum, minimum, subtract
from gradtx.core._ranges import Decay, DType, Fraction, Limit, NonNegative, NonNegativeInt, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics import _factored as factors
from gradtx.numerics._averages import ema as average
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._safe import abs_sq, safe_sqrt
from gradtx.transforms._clipping import clip_by_block_rms
from gradtx.transforms._ema import ema
from gradtx.transforms._scaling import scale, scale_by_lr
from gradtx.transforms._trust_ratio import scale_by_param_block_rms
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class FactoredState(NamedTuple):
    """The number of updates made, and the moving average of g²: its means over two axes, or the whole of it in `v`.

    A slot that a parameter does not use holds a zero of shape (1,).
    """

    count: jax.Array
    v_row: Updates
    v_col: Updates
    v: Updates


@transformation
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: NonNegative = 0.8,
    step_offset: NonNegativeInt = 0,
    min_dim_size_to_factor: PositiveInt = 128,
    epsilon: NonNegative = 1e-30,
    decay_rate_fn: Callable[[jax.Array, Any], Any] | None = None,
    *,
    decay_cap: Fraction = 1.0,
) -> GradientTransformationExtraArgs:
    """v = b v + (1 - b) (g² + epsilon), b = 1 - t^-decay_rate; u = g / sqrt(v).

    Arrays with two large axes keep only the means of v over the largest and over the second largest axis, r and c; v is
    then r c / mean(r). All other arrays keep v itself.

    Args:
      factored: False keeps v itself for all arrays.
      decay_rate: the exponent in b; with 0, v is not averaged.
      step_offset: subtracted from t, which stays at least 1: the step of a resumed run at which averaging starts anew.
      min_dim_size_to_factor: the least size of both axes.
      epsilon: added to g².
      decay_rate_fn: a function that returns b, called with t - 1 and `decay_rate`; None for the b above.
      decay_cap: the largest b.

    Reference: Shazeer and Stern 2018, arXiv:1804.04235, algorithm 4.
    """

    def axes_of(shape):
        return factors.factored_axes(shape, min_dim_size_to_factor) if factored else None

    def init(p):
        v, axes = zeros_like(p, real=True), axes_of(reductions.whole_shape(p))
        if axes is None:
            return jnp.zeros(1, v.dtype), jnp.zeros(1, v.dtype), v
        return *factors.factor_means(v, axes), jnp.zeros(1, v.dtype)

    def shared(t, total):
        t = maximum(subtract(t, step_offset), 1)
        decay = 1 - t**-decay_rate if decay_rate_fn is None else decay_rate_fn(t - 1, decay_rate)
        return minimum(decay, decay_cap)

    def update(g, slots, p, t, decay):
        (row, col, v), axes, square = slots, axes_of(reductions.whole_shape(g)), add(abs_sq(g), epsilon)
        if axes is None:
            v = average(v, square, decay)
            return factors.over_root(g, safe_sqrt(v)), (row, col, v)
        new_row, new_col = factors.factor_means(square, axes)
        row, col = average(row, new_row, decay), average(col, new_col, decay)
        return factors.over_root(g, factors.factored_root(row, col, axes)), (row, col, v)

    return per_parameter(init, update, FactoredState, shared=shared)


@transformation
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: PositiveInt = 128,
    decay_rate: NonNegative = 0.8,
    decay_offset: NonNegativeInt = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Limit | None = 1.0,
    momentum: Decay | None = None,
    dtype_momentum: DType = jnp.float32,
    weight_decay_rate: NonNegative | None = None,
    eps: NonNegative = 1e-30,
    factored: bool = True,
    weight_decay_mask: MaskOfParams | None = None,
    *,
    min_scale: NonNegative = 1e-3,
) -> GradientTransformationExtraArgs:
    """u = g / sqrt(v); p = p - learning_rate * max(RMS(p), min_scale) * u / max(1, RMS(u) / clipping_threshold).

    The second moment v is that of `scale_by_factored_rms`.

    Args:
      learning_rate: relative to RMS(p); None for 1. The paper's is `lambda count: min(0.01, (count + 1)^-0.5)`.
      min_dim_size_to_factor, decay_rate, factored: see `scale_by_factored_rms`.
      decay_offset, eps: the `step_offset` and `epsilon` of `scale_by_factored_rms`.
      multiply_by_parameter_scale: False leaves out max(RMS(p), min_scale); the learning rate is then absolute.
      clipping_threshold: the largest RMS of u that is not scaled down; None for no clipping.
      momentum: the decay of a moving average of the steps, learning rate included; None for no average.
      dtype_momentum: the dtype in which that average is stored.
      weight_decay_rate: the part of p that is subtracted at each step, whatever the learning rate; None for 0.
      min_scale: counts in place of RMS(p) where that is smaller, so that parameters of 0 move.

    Reference: Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 and 5.
    """
    stages = [scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)]
    if clipping_threshold is not None:
        stages.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        stages.append(scale_by_lr(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        stages.append(scale_by_param_block_rms(min_scale))
    if momentum is not None:
        stages.append(ema(momentum, False, dtype_momentum))
    if weight_decay_rate is not None:
        stages.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*stages, scale(-1.0))


@transformation
def adafactor_big_vision(
    learning_rate: ScalarOrSchedule,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    *,
    decay_rate: NonNegative = 0.8,
    decay_cap: Fraction = 0.999,
    clipping_threshold: Limit | None = None,
    min_dim_size_to_factor: PositiveInt = 32,
    eps: NonNegative = 1e-30,
    dtype_momentum: DType = jnp.bfloat16,
) -> GradientTransformationExtraArgs:
    """Adafactor in the variant that trains vision transformers: p = p - learning_rate (m + weight_decay p).

    m is the moving average of g / sqrt(v), without bias correction, with the v of `scale_by_factored_rms`. Steps do not
    depend on the size of the parameter, so that learning rates are those of Adam.

    Args:
      decay_rate, decay_cap, min_dim_size_to_factor: see `scale_by_factored_rms`.
      eps: added to g².
      clipping_threshold: the largest RMS of g / sqrt(v) that is not scaled down; None for no clipping.
      momentum, dtype_momentum: the decay of m, and the dtype in which it is stored.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Zhai et al. 2021, arXiv:2106.04560, section 3.4.
    """
    scaling = scale_by_factored_rms(True, decay_rate, 0, min_dim_size_to_factor, eps, decay_cap=decay_cap)
    return chain(
        *([scaling] if clipping_threshold is None else [scaling, clip_by_block_rms(clipping_threshold)]),
        ema(momentum, False, dtype_momentum),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
