# SPDX-License-Identifier: Apache-2.0
"""KL-Shampoo: Shampoo whose factors are each estimated on what the other one has whitened."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._combine import chain
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, Limit, NonNegative, Positive, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._kronecker import (
    Arrays,
    Whitening,
    axes_with_basis,
    failed_roots,
    first_whitening,
    gains_of,
    initial_whitening,
    into_bases,
    is_due,
    next_whitening,
    out_of_bases,
    turned,
)
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import decay_weights
from gradtx.wrappers._masked import MaskOfParams


class KLShampooState(NamedTuple):
    """The number of calls, the moving average of g; for each parameter tuples of L, of λ and of Q.

    `failures` is how often in a row a new Q of the parameter was not finite.
    """

    count: jax.Array
    mu: Updates
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
def scale_by_kl_shampoo(
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
    """KL-Shampoo's direction, with L, λ and Q for each axis of a parameter (written here for the two of a matrix):

    ```
    mu = b1 mu + (1 - b1) g        h = min(λ^(-1/2), max(10, min(length of the axis, max_clamp)))        e = h1 h2ᵀ
    u  = Q1 ((Q1ᵀ mu Q2) e / (1 + eps e)) Q2ᵀ
    L1 = b2 L1 + (1 - b2) mean of (g Q2 h2)(g Q2 h2)ᵀ          over the columns; L2 likewise
    λ1 = b2 λ1 + (1 - b2) mean of ((Q1ᵀ g Q2) h2)²             over the columns; λ2 likewise
    every f steps: Q = QR(L Q).Q
    ```

    The first call makes L = (1 - b2) mean of g gᵀ and Q = eigenvectors(L) only, with u = 0; λ begins at `init_factor`.
    The h and Q on all right-hand sides are those of the step before. A vector has λ and no basis: Q = 1. What comes
    out with NaN is not taken, see `scale_by_shampoo`.

    Args:
      eps: added to 1 / e, the root of a product of eigenvalues.
      precondition_frequency: f, the number of steps between two changes of Q.
      init_factor: the first λ.
      max_clamp: a limit of h.
      max_precond_dim: the longest axis that has L and Q; a longer one has λ only.
      stagger: whether matrices of different kinds change Q at different steps, see `scale_by_shampoo`.
      weight_dimension_numbers: which axes are inputs and outputs of a matrix, as in `scale_by_muon`. None asks the
        roles; what has none there has a basis for each of its axes.

    Reference: Lin et al. 2025, arXiv:2509.03378.
    """

    def direction(x, r, averages, w, gains, axes):
        m, gain = ema(averages[0], x, b1), math.prod(gains)
        u = out_of_bases(into_bases(m, w.bases, axes) * (gain / (1 + eps * gain)), w.bases, axes)
        return u, (), (m,)

    return kl_rule(
        KLShampooState,
        lambda p: (zeros_like(p),),
        direction,
        b2,
        precondition_frequency=precondition_frequency,
        init_factor=init_factor,
        max_clamp=max_clamp,
        max_precond_dim=max_precond_dim,
        stagger=stagger,
        weight_dimension_numbers=weight_dimension_numbers,
    )


def kl_rule(
    state: type,
    averages_of: Callable[[jax.Array], Arrays],
    direction: Callable[..., tuple[jax.Array, Arrays, Arrays]],
    b2: Any,
    *,
    precondition_frequency: int,
    init_factor: Any,
    max_clamp: Any,
    max_precond_dim: int,
    stagger: bool,
    weight_dimension_numbers: Any,
) -> GradientTransformationExtraArgs:
    """What KL-Shampoo and KL-SOAP have in common: the factors, the bases, the first call.

    Args:
      state: its slots are some averages, and the fields of `Whitening`.
      averages_of: the first averages of a parameter.
      direction: from g, its coordinates r, the averages, the whitening, the gains and the axes with a basis to u and
        the new averages, first those that are coordinates: they move into a new basis.
    """

    def init(p):
        return *averages_of(p), *initial_whitening(p, axes_with_basis(p.shape, max_precond_dim), init_factor)

    def update(g, slots, p, t, turn=(0, 1)):
        rest = len(slots) - len(Whitening._fields)
        w, axes = Whitening(*slots[rest:]), axes_with_basis(g.shape, max_precond_dim)
        x = jnp.atleast_1d(g)

        def first():
            return jnp.zeros_like(g), (*slots[:rest], *first_whitening(w, x, axes, b2))

        def later():
            r, gains = into_bases(x, w.bases, axes), gains_of(w, max_clamp)
            old = tuple(y.reshape(x.shape) for y in slots[:rest])
            u, inside, others = direction(x, r, old, w, gains, axes)
            new = next_whitening(w, r, gains, axes, b2)
            inside, bases, failures = branch(
                is_due(t - 1, precondition_frequency, turn),
                lambda: turned(new.factors, w.bases, w.failures, inside, axes),
                lambda: (inside, w.bases, w.failures),
            )
            averages = tuple(y.reshape(g.shape) for y in (*inside, *others))
            return u.reshape(g.shape), (*averages, *new._replace(bases=bases, failures=failures))

        return branch(t == 1, first, later)

    return per_matrix(
        init,
        update,
        state,
        weight_dimension_numbers=weight_dimension_numbers,
        modes="all",
        takes_turns=stagger,
    )


@transformation
def kl_shampoo(
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
    """KL-Shampoo: Shampoo without grafting, by factors that minimize a Kullback-Leibler divergence; for all parameters.

    The first call changes no parameter, and the weight decay is of the new ones (`decay_weights`, `of_new`). See
    `scale_by_kl_shampoo` for the formula.

    Args:
      precondition_frequency, init_factor, max_clamp, max_precond_dim, stagger: see `scale_by_kl_shampoo`.
      mask: where to decay, see `add_decayed_weights`.
      weight_dimension_numbers: see `scale_by_kl_shampoo`.

    Reference: Lin et al. 2025, arXiv:2509.03378.
    """
    direction = scale_by_kl_shampoo(
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
