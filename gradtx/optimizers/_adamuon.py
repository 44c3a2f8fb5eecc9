# SPDX-License-Identifier: Apache-2.0
"""AdaMuon and NAMO: Muon's direction with Adam's second moment, of its elements or of the gradient's norm."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, one_minus_power, zeros_like
from gradtx.numerics._newton_schulz import QUINTIC
from gradtx.numerics._polar import jordan_momentum, polar_factor
from gradtx.numerics._safe import abs_sq, euclidean_norm, safe_divide, safe_sqrt
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._muon import Scaling, matrices_and_rest, scale_by_matrix_shape
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByAdaMuonState(NamedTuple):
    """The number of updates made, the moving averages of g and of the squared orthogonalized momentum."""

    count: jax.Array
    mu: Updates
    nu: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_adamuon(
    beta: Decay = 0.95,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    nesterov: bool = True,
    ns_coeffs: Any = QUINTIC,
    ns_eps: NonNegative = 1e-7,
    ns_dtype: DType = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """Muon's direction, each element over the root of a moving average of its square; the root mean square of u is 0.2.

    ```
    mu = beta mu + (1 - beta) g        O = NewtonSchulz(mu), or of beta mu + (1 - beta) g with `nesterov`
    nu = b2 nu + (1 - b2) O²           y = O / (sqrt(nu / (1 - b2^t)) + eps)
    u  = 0.2 sqrt(inputs outputs) y / (‖y‖ + eps)
    ```

    Args:
      ns_coeffs, ns_dtype, weight_dimension_numbers: see `scale_by_muon`; the default is five steps of "quintic".
      ns_eps: added to the norm that the momentum is divided by.

    Raises:
      ValueError: for a parameter that is no matrix and has no dimension numbers.

    Reference: Si et al. 2025, arXiv:2507.11005.
    """
    polar = polar_factor("scale_by_adamuon", ns_coeffs, ns_eps, ns_dtype)

    def init(p):
        return zeros_like(p), zeros_like(p, real=True)

    def update(x, nu, p, t):
        o = polar(x)
        nu = ema(nu, abs_sq(o), b2)
        y = safe_divide(o, safe_sqrt(nu / one_minus_power(b2, t)) + eps)
        return 0.2 * math.sqrt(o.size) * safe_divide(y, euclidean_norm(y) + eps), nu

    return per_matrix(
        init,
        update,
        ScaleByAdaMuonState,
        enter=jordan_momentum(beta, nesterov),
        entering=("mu",),
        weight_dimension_numbers=weight_dimension_numbers,
    )


@transformation
def adamuon(
    learning_rate: ScalarOrSchedule,
    beta: Decay = 0.95,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    *,
    nesterov: bool = True,
    ns_coeffs: Any = QUINTIC,
    ns_eps: NonNegative = 1e-7,
    ns_dtype: DType = None,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
) -> GradientTransformationExtraArgs:
    """AdaMuon on matrices, Adam on the rest, as `muon` divides them; both with decoupled weight decay.

    See `scale_by_adamuon` for the formula. The updates of both have about the same root mean square.

    Args:
      b2: the decay of the squares.
      eps: as in the formula; also added to Adam's denominator.
      nesterov: applies to Adam, too.
      ns_coeffs, ns_eps, ns_dtype: see `scale_by_adamuon`.
      mask: where to decay among the matrices; the rest has `adam_weight_decay`.
      weight_dimension_numbers: as `muon_weight_dimension_numbers` of `muon`.
      adam_learning_rate: None for `learning_rate`.

    Reference: Si et al. 2025, arXiv:2507.11005.
    """
    of_matrices = chain(
        scale_by_adamuon(
            beta,
            b2,
            eps,
            nesterov=nesterov,
            ns_coeffs=ns_coeffs,
            ns_eps=ns_eps,
            ns_dtype=ns_dtype,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    of_rest = adamw(rate, adam_b1, adam_b2, eps, adam_eps_root, weight_decay=adam_weight_decay, nesterov=nesterov)
    return matrices_and_rest(of_matrices, of_rest, weight_dimension_numbers)


class ScaleByNamoState(NamedTuple):
    """The number of updates made, the moving averages of g and of its squared norm, one number for each matrix."""

    count: jax.Array
    mu: Updates
    nu: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_namo(
    beta: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    *,
    nesterov: bool = False,
    ns_coeffs: Any = QUINTIC,
    ns_eps: NonNegative = 1e-7,
    ns_dtype: DType = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """Muon's direction times the norm of the momentum over the root mean square of the gradient's norm.

    ```
    mu = beta mu + (1 - beta) g        x = mu, or beta mu + (1 - beta) g with `nesterov`
    nu = b2 nu + (1 - b2) ‖g‖²         u = NewtonSchulz(x) ‖x‖ / (sqrt(nu) + eps)
    ```

    The factor is small where gradients are mostly noise. The averages are not bias-corrected, which they are in the
    paper.

    Args:
      ns_coeffs, ns_dtype, weight_dimension_numbers: see `scale_by_muon`; the default is five steps of "quintic".
      ns_eps: added to the norm that the momentum is divided by.

    Raises:
      ValueError: for a parameter that is no matrix and has no dimension numbers.

    Reference: Zhang et al. 2026, arXiv:2602.17080.
    """
    polar, momentum = polar_factor("scale_by_namo", ns_coeffs, ns_eps, ns_dtype), jordan_momentum(beta, nesterov)

    def init(p):
        return zeros_like(p), jnp.zeros([], jnp.real(p).dtype)

    def enter(g, mu, p, t):
        x, mu = momentum(g, mu, p, t)
        return (x, g), mu

    def update(pair, nu, p, t):
        x, g = pair
        nu = ema(nu, jnp.sum(abs_sq(g)), b2)
        return polar(x) * safe_divide(euclidean_norm(x), safe_sqrt(nu) + eps), nu

    return per_matrix(
        init,
        update,
        ScaleByNamoState,
        enter=enter,
        entering=("mu",),
        weight_dimension_numbers=weight_dimension_numbers,
    )


@transformation
def namo(
    learning_rate: ScalarOrSchedule,
    beta: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    *,
    nesterov: bool = False,
    scaling: Scaling = "jordan",
    ns_coeffs: Any = QUINTIC,
    ns_eps: NonNegative = 1e-7,
    ns_dtype: DType = None,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
) -> GradientTransformationExtraArgs:
    """NAMO on matrices, Adam on the rest, as `muon` divides them; both with decoupled weight decay.

    See `scale_by_namo` for the formula.

    Args:
      b2: the decay of the squared norms.
      eps: as in the formula; also added to Adam's denominator.
      nesterov: applies to Adam, too.
      scaling: see `scale_by_matrix_shape`.
      ns_coeffs, ns_eps, ns_dtype: see `scale_by_namo`.
      mask: where to decay among the matrices; the rest has `adam_weight_decay`.
      weight_dimension_numbers: as `muon_weight_dimension_numbers` of `muon`.
      adam_learning_rate: None for `learning_rate`.

    Reference: Zhang et al. 2026, arXiv:2602.17080.
    """
    of_matrices = chain(
        scale_by_namo(
            beta,
            b2,
            eps,
            nesterov=nesterov,
            ns_coeffs=ns_coeffs,
            ns_eps=ns_eps,
            ns_dtype=ns_dtype,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        scale_by_matrix_shape(None, weight_dimension_numbers, scaling=scaling),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    of_rest = adamw(rate, adam_b1, adam_b2, eps, adam_eps_root, weight_decay=adam_weight_decay, nesterov=nesterov)
    return matrices_and_rest(of_matrices, of_rest, weight_dimension_numbers)
