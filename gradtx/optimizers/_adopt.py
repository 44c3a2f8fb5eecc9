# SPDX-License-Identifier: Apache-2.0
"""ADOPT: Adam whose second moment does not contain the current gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt, shrink_factor
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.transforms._scaling import scale_by_lr


def fourth_root(t: jax.Array) -> jax.Array:
    """t^(1/4): ADOPT's limit for the normalized gradient."""
    return t**0.25


@transformation
def scale_by_adopt(
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DType = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] = fourth_root,
) -> GradientTransformationExtraArgs:
    """ADOPT's direction. The first step only sets nu = g²; from the second on, counted by t from 1:

    ```
    c  = clip(g / max(sqrt(nu), eps), -clip_value_fn(t), clip_value_fn(t))
    mu = b1 mu + (1 - b1) c        u = mu        nu = b2 nu + (1 - b2) g²
    ```

    Args:
      eps: the least denominator.
      nesterov: True for u = b1 mu + (1 - b1) c, which is not in the paper.
      use_clipping: False for the paper's first form, without the clip.
      clip_value_fn: the limit as a function of t, a scalar array.

    Reference: Taniguchi et al. 2024, arXiv:2411.02853.
    """

    if use_clipping and clip_value_fn is None:
        raise TypeError("scale_by_adopt: clip_value_fn must be a function of the step with use_clipping, got None")

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, real=True)

    def shared(t, total):
        return t == 1, clip_value_fn(jnp.maximum(t - 1, 1)) if use_clipping else 1.0

    def update(g, slots, p, t, common):
        (mu, nu), (first, limit) = slots, common
        c = safe_divide(g, jnp.maximum(safe_sqrt(nu), eps))
        if use_clipping:
            c = c * shrink_factor(safe_sqrt(abs_sq(c)), limit) if jnp.iscomplexobj(c) else jnp.clip(c, -limit, limit)
        c = jnp.where(first, 0, c)  # nu is still 0
        mu = ema(mu, c, b1)
        nu = jnp.where(first, abs_sq(g), ema(nu, abs_sq(g), b2))
        return ema(mu, c, b1) if nesterov else mu, (mu, nu)

    return per_parameter(init, update, ScaleByAdamState, shared=shared)


@transformation
def adopt(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DType = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] = fourth_root,
) -> GradientTransformationExtraArgs:
    """ADOPT: Adam that converges for any b2, since it normalizes by the second moment of past gradients only.

    See `scale_by_adopt` for the formula.

    Args:
      eps: the least denominator.
      use_clipping, clip_value_fn: see `scale_by_adopt`.

    Reference: Taniguchi et al. 2024, arXiv:2411.02853.
    """
    return chain(
        scale_by_adopt(
            b1, b2, eps, mu_dtype, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
        ),
        scale_by_lr(learning_rate),
    )
