# SPDX-License-Identifier: Apache-2.0
"""CAME: Adafactor with momentum that shrinks where the momentum and the current update disagree."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, Limit, NonNegative, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.numerics import _factored as factors
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._safe import abs_sq, root_mean_square, safe_sqrt, shrink_factor
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByCameState(NamedTuple):
    """The momentum, the second moment of g in two factors or whole in `v`, and that of the momentum's errors.

    A slot that a parameter does not use holds a zero of shape (1,).
    """

    mu: Updates
    v_row: Updates
    v_col: Updates
    v: Updates
    s_row: Updates
    s_col: Updates


@transformation
def scale_by_came(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_error: NonNegative = 1e-16,
    clipping_threshold: Limit = 1.0,
    *,
    min_dim_size_to_factor: PositiveInt = 1,
    mu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """The direction of CAME, where v and s are kept in two factors, as in Adafactor:

    ```
    v = b2 v + (1 - b2) (g² + eps)       x = g / sqrt(v);  x = x / max(1, RMS(x) / clipping_threshold)
    mu = b1 mu + (1 - b1) x
    s = b3 s + (1 - b3) ((x - mu)² + eps_error)                          u = mu / sqrt(s)
    ```

    Vectors, scalars and arrays with small axes keep v itself and no s; for them u = mu, as in the authors' code.

    Args:
      eps, eps_error: added to g² and to (x - mu)².
      clipping_threshold: the largest RMS of x that is not scaled down.
      min_dim_size_to_factor: the least size of the two largest axes for v and s to be kept in factors.
      mu_dtype: the dtype in which mu is stored; None for at least float32.

    Reference: Luo et al. 2023, arXiv:2307.02047, algorithm 2.
    """

    def init(p):
        v, axes = zeros_like(p, real=True), factors.factored_axes(reductions.whole_shape(p), min_dim_size_to_factor)
        row, col, s_row, s_col = (jnp.zeros(1, v.dtype) for _ in range(4))
        if axes is None:
            return zeros_like(p, mu_dtype), row, col, v, s_row, s_col
        return zeros_like(p, mu_dtype), *factors.factor_means(v, axes), row, *factors.factor_means(v, axes)

    def update(g, slots, p, t):
        mu, v_row, v_col, v, s_row, s_col = slots
        axes, square = factors.factored_axes(reductions.whole_shape(g), min_dim_size_to_factor), abs_sq(g) + eps
        if axes is None:
            v = ema(v, square, b2)
            root = safe_sqrt(v)
        else:
            row, col = factors.factor_means(square, axes)
            v_row, v_col = ema(v_row, row, b2), ema(v_col, col, b2)
            root = factors.factored_root(v_row, v_col, axes)
        x = factors.over_root(g, root)
        x = x * shrink_factor(root_mean_square(x, clipping_threshold), clipping_threshold)
        mu = ema(mu, x, b1)
        if axes is None:
            return mu, (mu, v_row, v_col, v, s_row, s_col)
        row, col = factors.factor_means(abs_sq(x - mu) + eps_error, axes)
        s_row, s_col = ema(s_row, row, b3), ema(s_col, col, b3)
        u = factors.over_root(mu, factors.factored_root(s_row, s_col, axes))
        return u, (mu, v_row, v_col, v, s_row, s_col)

    return per_parameter(init, update, ScaleByCameState)


@transformation
def came(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_error: NonNegative = 1e-16,
    clipping_threshold: Limit = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    *,
    min_dim_size_to_factor: PositiveInt = 1,
    mu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """CAME: p = p - learning_rate (u + weight_decay p), with the direction u of `scale_by_came`.

    Args:
      b1, b2, b3, eps, eps_error, clipping_threshold, min_dim_size_to_factor: see `scale_by_came`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Luo et al. 2023, arXiv:2307.02047.
    """
    direction = scale_by_came(
        b1,
        b2,
        b3,
        eps,
        eps_error,
        clipping_threshold,
        min_dim_size_to_factor=min_dim_size_to_factor,
        mu_dtype=mu_dtype,
    )
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate))
