# SPDX-License-Identifier: Apache-2.0
"""KL-SOAP: Adam in the eigenbasis of KL-Shampoo's factors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._combine import chain
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, NonNegative, Positive, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._kronecker import (
    Whitening,
    axes_with_basis,
    first_whitening,
    gains_of,
    initial_whitening,
    into_bases,
    next_whitening,
    out_of_bases,
    power_step,
)
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import decay_weights


class KLSoapState(NamedTuple):
    """The number of calls, the moving averages of r and |r|²; for each parameter tuples of L, of λ and of Q."""

    count: jax.Array
    mu: Updates
    nu: Updates
    factors: Updates
    eigenvalues: Updates
    bases: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_kl_soap(
    b1: Decay = 0.9,
    b2: Decay = 0.98,
    eps: NonNegative = 1e-8,
    *,
    precondition_frequency: PositiveInt = 10,
    init_factor: Positive = 0.1,
    max_clamp: Positive = 4000,
    max_precond_dim: PositiveInt = 10000,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """KL-SOAP's direction: Adam without bias correction, in coordinates r with the bases Q of `scale_by_kl_shampoo`.

    ```
    r  = Q1ᵀ g Q2        mu = b1 mu + (1 - b1) r        nu = b2 nu + (1 - b2) r²
    u  = Q1 (mu / (sqrt(nu) + eps)) Q2ᵀ
    ```

    L, λ and Q are updated after it, as there. Every f steps mu moves into the new basis, and nu stays as it is.

    Args:
      precondition_frequency, init_factor, max_clamp, weight_dimension_numbers: see `scale_by_kl_shampoo`.
      max_precond_dim: the longest axis that has L and Q.

    Reference: Lin et al. 2025, arXiv:2509.03378.
    """

    def init(p):
        whitening = initial_whitening(p, axes_with_basis(p.shape, max_precond_dim), init_factor)
        return zeros_like(p), zeros_like(p, real=True), *whitening

    def update(g, slots, p, t):
        mu, nu, w, axes = *slots[:2], Whitening(*slots[2:]), axes_with_basis(g.shape, max_precond_dim)
        x = jnp.atleast_1d(g)

        def first():
            return jnp.zeros_like(g), (mu, nu, *first_whitening(w, x, axes, b2))

        def later():
            r = into_bases(x, w.bases, axes)
            m, v = ema(mu, r.reshape(g.shape), b1), ema(nu, abs_sq(r).reshape(g.shape), b2)
            u = out_of_bases(safe_divide(m, safe_sqrt(v) + eps), w.bases, axes)
            new = next_whitening(w, r, gains_of(w, max_clamp), axes, b2)

            def turned():
                bases = tuple(map(power_step, new.factors, w.bases))
                return into_bases(out_of_bases(m, w.bases, axes), bases, axes), bases

            due = (t - 1) % precondition_frequency == 0
            kept, bases = branch(due, turned, lambda: (m, w.bases))
            return u, (kept, v, *new._replace(bases=bases))

        return branch(t == 1, first, later)

    return per_matrix(init, update, KLSoapState, weight_dimension_numbers=weight_dimension_numbers, modes="all")


@transformation
def kl_soap(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.98,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    *,
    precondition_frequency: PositiveInt = 10,
    init_factor: Positive = 0.1,
    max_clamp: Positive = 4000,
    max_precond_dim: PositiveInt = 10000,
    mask: Any | Callable[[Params], Any] = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """KL-SOAP: SOAP in the bases of KL-Shampoo; for all parameters.

    The first call changes no parameter, and the weight decay is of the new ones (`decay_weights`, `of_new`). See
    `scale_by_kl_soap` for the formula.

    Args:
      precondition_frequency, init_factor, max_clamp, max_precond_dim: see `scale_by_kl_soap`.
      mask: where to decay, see `add_decayed_weights`.
      weight_dimension_numbers: see `scale_by_kl_soap`.

    Reference: Lin et al. 2025, arXiv:2509.03378.
    """
    direction = scale_by_kl_soap(
        b1,
        b2,
        eps,
        precondition_frequency=precondition_frequency,
        init_factor=init_factor,
        max_clamp=max_clamp,
        max_precond_dim=max_precond_dim,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    decay = decay_weights(weight_decay, "decoupled", mask, learning_rate=learning_rate, of_new=True, begin=1)
    return chain(direction, scale_by_lr(learning_rate), decay)
