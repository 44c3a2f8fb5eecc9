# SPDX-License-Identifier: Apache-2.0
"""AdamP: Adam without the part of the step that only makes scale-invariant weights larger."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, unbiased, weighted, zeros_like
from gradtx.numerics._ratios import along, l2_norms
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.transforms._scaling import scale_by_lr
from gradtx.wrappers._masked import MaskOfParams, masked, others


def _projected(
    u: jax.Array, g: jax.Array, p: jax.Array, delta: Any, units: tuple[int, ...] = ()
) -> tuple[jax.Array, jax.Array]:
    """u without its part along p, and whether g is that orthogonal to p; for each of the units that these axes number.

    Without units it is one for all elements. With units, the one with the largest cosine decides for all.
    """
    axes = tuple(a for a in range(p.ndim) if a not in units) if units else None
    of_p, of_g = l2_norms(p, g, axes)
    unit = safe_divide(p, of_p)
    cosine = jnp.abs(along(safe_divide(g, of_g), unit, axes))
    if units:
        cosine = jnp.squeeze(reductions.largest(cosine, units, keepdims=True, initial=0))
    return u - unit * along(u, unit, axes), cosine < delta / max(reductions.size(p, axes), 1.0) ** 0.5


@transformation
def scale_by_adamp(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    delta: NonNegative = 0.1,
    wd_ratio: NonNegative = 0.1,
    mu_dtype: DType = None,
    *,
    nesterov: bool = False,
    units: Literal["first", "last"] = "last",
) -> GradientTransformationExtraArgs:
    """AdamP's direction: a, that of `scale_by_adam`, projected where the gradient is orthogonal to the parameter.

    ```
    a = a - p <p, a> / ‖p‖²,  c = wd_ratio      if |cos(g, p)| < delta / sqrt(n), for n elements; else c = 1
    u = a + c weight_decay p
    ```

    So it is for weights before a normalization, of which only the direction matters. This is tried for the weights of
    each unit, and taken if the cosines of all units are small; else for the whole parameter. Vectors and scalars are
    not projected.

    Args:
      weight_decay: a parameter whose step is projected gets less of it, see above.
      delta: how small the cosine must be; 0 for no projection.
      wd_ratio: the factor of the weight decay where the step is projected.
      mu_dtype: the dtype in which mu is stored; None for at least float32.
      nesterov: True takes the numerator of `scale_by_adam(nesterov=True)`.
      units: the axis that numbers the units of a layer: "last" fits flax's kernels, "first" PyTorch's. Where a role
        names the output axes, those are used instead.

    Reference: Heo et al. 2020, arXiv:2006.08217, algorithm 2.
    """

    def init(p, role):
        return zeros_like(p, mu_dtype), zeros_like(p, real=True)

    def shared(t, total):
        return unbiased(b1, t, nesterov), correction(b2, t)

    def update(g, slots, p, t, corrections, role):
        (mu, nu), (of_mu, of_nu) = slots, corrections
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        u = safe_divide(weighted(mu, g, of_mu), safe_sqrt(of_nu * nu) + eps)
        if g.ndim < 2:
            return u + weight_decay * p, (mu, nu)
        numbers = role.out_axes if role is not None and role.out_axes else (0 if units == "first" else g.ndim - 1,)
        of_units, by_unit = _projected(u, g, p, delta, numbers)
        of_whole, by_whole = _projected(u, g, p, delta)
        u = jnp.where(by_unit, of_units, jnp.where(by_whole, of_whole, u))
        return u + jnp.where(by_unit | by_whole, wd_ratio, 1) * weight_decay * p, (mu, nu)

    return per_parameter(init, update, ScaleByAdamState, shared=shared, needs_params=True, uses_role=True)


@transformation
def adamp(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    *,
    delta: NonNegative = 0.1,
    wd_ratio: NonNegative = 0.1,
    nesterov: bool = False,
    units: Literal["first", "last"] = "last",
) -> GradientTransformationExtraArgs:
    """AdamP: AdamW whose momentum does not let weights before a normalization grow.

    See `scale_by_adamp` for the formula.

    Args:
      mask: where to decay, see `add_decayed_weights`.
      delta, wd_ratio, units: see `scale_by_adamp`.

    Reference: Heo et al. 2020, arXiv:2006.08217.
    """
    options: dict[str, Any] = dict(delta=delta, wd_ratio=wd_ratio, mu_dtype=mu_dtype, nesterov=nesterov, units=units)
    decaying = scale_by_adamp(b1, b2, eps, weight_decay, **options)
    if mask is None:
        return chain(decaying, scale_by_lr(learning_rate))
    plain = scale_by_adamp(b1, b2, eps, 0.0, **options)
    return chain(masked(decaying, mask), masked(plain, others(mask)), scale_by_lr(learning_rate))
