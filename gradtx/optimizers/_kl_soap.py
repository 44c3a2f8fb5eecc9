# SPDX-License-Identifier: Apache-2.0
"""KL-SOAP: Adam in the eigenbasis of KL-Shampoo's factors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, Limit, NonNegative, Positive, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._kronecker import failed_roots, out_of_bases
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._kl_shampoo import kl_rule
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import decay_weights
from gradtx.wrappers._masked import MaskOfParams


class KLSoapState(NamedTuple):
    """The number of calls, the moving averages of r and |r|²; for each parameter tuples of L, of λ and of Q.

    `failures` is how often in a row a new Q of the parameter was not finite.
    """

    count: jax.Array
    mu: Updates
    nu: Updates
    factors: Updates
    eigenvalues: Updates
    bases: Updates
    failures: Updates

    counts_from = {"count": 0}
    symmetric_fields = ("factors",)

    def metrics(self) -> dict[str, jax.Array]:
        """Of the parameter with the most failures their number, as "failed_roots"."""
        return failed_roots(self.failures)


@transformation
def scale_by_kl_soap(
    b1: Decay = 0.9,
    b2: Decay = 0.98,
    eps: NonNegative = 1e-8,
    *,
    precondition_frequency: PositiveInt = 10,
    init_factor: Positive = 0.1,
    max_clamp: Limit = 4000,
    max_precond_dim: PositiveInt = 10000,
    stagger: bool = False,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """KL-SOAP's direction: Adam without bias correction, in coordinates r with the bases Q of `scale_by_kl_shampoo`.

    ```
    r  = Q1ᵀ g Q2        mu = b1 mu + (1 - b1) r        nu = b2 nu + (1 - b2) r²
    u  = Q1 (mu / (sqrt(nu) + eps)) Q2ᵀ
    ```

    L, λ and Q are updated after it, as there. Every f steps mu moves into the new basis, and nu stays as it is.

    Args:
      precondition_frequency, init_factor, max_clamp, max_precond_dim, stagger: see `scale_by_kl_shampoo`.
      weight_dimension_numbers: see `scale_by_kl_shampoo`.

    Reference: Lin et al. 2025, arXiv:2509.03378.
    """

    def direction(x, r, averages, w, gains, axes):
        m, v = ema(averages[0], r, b1), ema(averages[1], abs_sq(r), b2)
        return out_of_bases(safe_divide(m, safe_sqrt(v) + eps), w.bases, axes), (m,), (v,)

    return kl_rule(
        KLSoapState,
        lambda p: (zeros_like(p), zeros_like(p, real=True)),
        direction,
        b2,
        precondition_frequency=precondition_frequency,
        init_factor=init_factor,
        max_clamp=max_clamp,
        max_precond_dim=max_precond_dim,
        stagger=stagger,
        weight_dimension_numbers=weight_dimension_numbers,
    )


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
    max_clamp: Limit = 4000,
    max_precond_dim: PositiveInt = 10000,
    stagger: bool = False,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """KL-SOAP: SOAP in the bases of KL-Shampoo; for all parameters.

    The first call changes no parameter, and the weight decay is of the new ones (`decay_weights`, `of_new`). See
    `scale_by_kl_soap` for the formula.

    Args:
      precondition_frequency, init_factor, max_clamp, max_precond_dim, stagger: see `scale_by_kl_soap`.
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
        stagger=stagger,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    decay = decay_weights(weight_decay, "decoupled", mask, learning_rate=learning_rate, of_new=True, begin=1)
    return chain(direction, scale_by_lr(learning_rate), decay)
