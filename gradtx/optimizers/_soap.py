# SPDX-License-Identifier: Apache-2.0
"""SOAP: Adam in the slowly turning eigenbasis of Shampoo's factors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._combine import chain
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, NonNegative, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, one_minus_power, zeros_like
from gradtx.numerics._kronecker import (
    averaged_grams,
    axes_with_basis,
    eigenbasis,
    failed_roots,
    identities_of,
    into_bases,
    is_due,
    no_failures,
    out_of_bases,
    taken,
    turned,
    zeros_of,
)
from gradtx.numerics._linear_algebra import HIGHEST
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import decay_weights
from gradtx.wrappers._masked import MaskOfParams


class SoapState(NamedTuple):
    """The number of calls, the moving averages of r and |r|², and for each parameter a tuple of L and one of Q.

    `failures` is how often in a row a new Q of the parameter was not finite.
    """

    count: jax.Array
    mu: Updates
    nu: Updates
    factors: Updates
    bases: Updates
    failures: Updates

    counts_from = {"count": 0}
    symmetric_fields = ("factors",)

    def metrics(self) -> dict[str, jax.Array]:
        """Of the parameter with the most failures their number, as "failed_roots"."""
        return failed_roots(self.failures)


@transformation
def scale_by_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    *,
    shampoo_b2: Decay | None = None,
    precondition_frequency: PositiveInt = 10,
    max_precond_dim: PositiveInt = 10000,
    stagger: bool = False,
    bias_correction: bool = True,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """SOAP's direction, with L and Q for each axis of a parameter (written here for the two of a matrix):

    ```
    r = Q1ᵀ g Q2        mu = b1 mu + (1 - b1) r        nu = b2 nu + (1 - b2) r²
    u = Q1 (mu / (sqrt(nu) + eps)) Q2ᵀ sqrt(1 - b2^n) / (1 - b1^n)
    L1 = shampoo_b2 L1 + (1 - shampoo_b2) g gᵀ         L2 likewise of gᵀ g
    every f steps: Q sorted by diag(Qᵀ L Q), then Q = QR(L Q).Q; mu and nu move along
    ```

    The first call makes L and Q = eigenvectors(L) only: u = 0, and n is 1 in the second. A vector or scalar has no
    basis: it gets Adam. A Q that comes out with NaN is not taken, see `scale_by_shampoo`.

    Args:
      shampoo_b2: the decay of L; None for b2.
      precondition_frequency: f, the number of steps between two changes of Q.
      max_precond_dim: the longest axis that has L and Q; a longer one stays as it is.
      stagger: whether matrices of different kinds change Q at different steps, see `scale_by_shampoo`.
      weight_dimension_numbers: which axes are inputs and outputs of a matrix, as in `scale_by_muon`. None asks the
        roles; what has none there has a basis for each of its axes.

    Reference: Vyas et al. 2024, arXiv:2409.11321.
    """
    of_factors = b2 if shampoo_b2 is None else shampoo_b2

    def init(p):
        axes = axes_with_basis(p.shape, max_precond_dim)
        return zeros_like(p), zeros_like(p, real=True), zeros_of(p, axes), identities_of(p, axes), no_failures()

    def update(g, slots, p, t, turn=(0, 1)):
        mu, nu, factors, bases, failures = slots
        axes = axes_with_basis(g.shape, max_precond_dim)
        n = t - 1
        grown = averaged_grams(factors, g, axes, of_factors)

        def first():
            return jnp.zeros_like(g), (mu, nu, grown, *taken(tuple(map(eigenbasis, grown)), bases, failures))

        def later():
            r = into_bases(g, bases, axes)
            m, v = ema(mu, r, b1), ema(nu, abs_sq(r), b2)
            u = out_of_bases(safe_divide(m, safe_sqrt(v) + eps), bases, axes)
            if bias_correction:
                u = u * (jnp.sqrt(one_minus_power(b2, n)) / one_minus_power(b1, n))

            def sorted_and_turned():
                mu, nu, better = _sorted(m, v, grown, bases, axes)
                (mu,), better, failed = turned(grown, better, failures, (mu,), axes)
                return mu, nu, better, failed

            due = is_due(n, precondition_frequency, turn)
            m, v, *of_bases = branch(due, sorted_and_turned, lambda: (m, v, bases, failures))
            return u, (m, v, grown, *of_bases)

        return branch(t == 1, first, later)

    return per_matrix(
        init,
        update,
        SoapState,
        weight_dimension_numbers=weight_dimension_numbers,
        modes="all",
        takes_turns=stagger,
    )


def _sorted(mu: Any, nu: Any, factors: Any, bases: Any, axes: Any) -> tuple:
    """The averages and the bases in the order of the eigenvalues, largest first."""
    found = []
    for factor, basis, axis in zip(factors, bases, axes, strict=True):
        values = jnp.real(jnp.sum(jnp.conj(basis) * jnp.matmul(factor, basis, precision=HIGHEST), axis=0))
        order = jnp.argsort(-values)
        mu, nu = (jnp.take(x, order, axis) for x in (mu, nu))
        found.append(basis[:, order])
    return mu, nu, tuple(found)


@transformation
def soap(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    *,
    shampoo_b2: Decay | None = None,
    precondition_frequency: PositiveInt = 10,
    max_precond_dim: PositiveInt = 10000,
    stagger: bool = False,
    bias_correction: bool = True,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """SOAP: Adam in the eigenbasis of Shampoo's factors, for all parameters; vectors and scalars get Adam itself.

    The first call changes no parameter, and the weight decay is of the new ones (`decay_weights`, `of_new`). See
    `scale_by_soap` for the formula.

    Args:
      shampoo_b2, precondition_frequency, max_precond_dim, stagger, weight_dimension_numbers: see `scale_by_soap`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Vyas et al. 2024, arXiv:2409.11321.
    """
    direction = scale_by_soap(
        b1,
        b2,
        eps,
        shampoo_b2=shampoo_b2,
        precondition_frequency=precondition_frequency,
        max_precond_dim=max_precond_dim,
        stagger=stagger,
        bias_correction=bias_correction,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    decay = decay_weights(weight_decay, "decoupled", mask, learning_rate=learning_rate, of_new=True, begin=1)
    return chain(direction, scale_by_lr(learning_rate), decay)
