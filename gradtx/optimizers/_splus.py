# SPDX-License-Identifier: Apache-2.0
"""SPlus: the sign of the momentum, taken in the eigenbasis of Shampoo's factors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._combine import chain
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, NonNegative, PositiveInt
from gradtx.core._roles import Role
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema as averaged
from gradtx.numerics._averages import zeros_like
from gradtx.numerics._kronecker import (
    averaged_grams,
    eigenbasis,
    failed_roots,
    identities_of,
    into_bases,
    is_due,
    no_failures,
    out_of_bases,
    taken,
    zeros_of,
)
from gradtx.transforms._averaging import params_ema
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class SPlusState(NamedTuple):
    """The number of updates made, the moving average of g, and for each parameter a tuple of L and one of Q.

    `failures` is how often in a row a new Q of the parameter was not finite.
    """

    count: jax.Array
    mu: Updates
    factors: Updates
    bases: Updates
    failures: Updates

    counts_from = {"count": 0}
    symmetric_fields = ("factors",)

    def metrics(self) -> dict[str, jax.Array]:
        """Of the parameter with the most failures their number, as "failed_roots"."""
        return failed_roots(self.failures)


def _axes(shape: tuple[int, ...], role: Role | None, largest: int) -> tuple[int, ...]:
    """Both axes of a matrix, unless it is too large or a role says that its rows are looked up or scale norms."""
    special = role is not None and role.kind in ("embedding", "norm")
    return () if special or len(shape) != 2 or max(shape) > largest or min(shape) == 0 else (0, 1)


@transformation
def scale_by_splus(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    *,
    precondition_frequency: PositiveInt = 100,
    max_precond_dim: PositiveInt = 10000,
    stagger: bool = False,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """SPlus's direction:

    ```
    mu = b1 mu + (1 - b1) g        u = Q1 sign(Q1ᵀ mu Q2) Q2ᵀ
    L1 = b2 L1 + (1 - b2) g gᵀ     L2 likewise of gᵀ g
    Q  = eigenvectors(L)           after the first step and every f steps; 1 before
    ```

    What is no matrix, an embedding or norm by its role, or has a longer side than `max_precond_dim`, gets sign(mu).
    A Q that comes out with NaN is not taken, see `scale_by_shampoo`.

    Args:
      precondition_frequency: f, the number of steps between two changes of Q.
      max_precond_dim: the longest side of a matrix that has L and Q.
      stagger: whether matrices of different kinds change Q at different steps, see `scale_by_shampoo`.
      weight_dimension_numbers: which axes are inputs and outputs of a matrix, as in `scale_by_muon`. None asks the
        roles; without them it is a parameter with two axes.

    Reference: Frans et al. 2025, arXiv:2506.07254.
    """

    def init(p, role):
        axes = _axes(p.shape, role, max_precond_dim)
        return zeros_like(p), zeros_of(p, axes), identities_of(p, axes), no_failures()

    def enter(g, mu, p, t):
        mu = averaged(mu, g, b1)
        return (g, mu), mu

    def update(entered, slots, p, t, role, turn=(0, 1)):
        (g, mu), (factors, bases, failures) = entered, slots
        axes = _axes(g.shape, role, max_precond_dim)
        u = out_of_bases(jnp.sign(into_bases(mu, bases, axes)), bases, axes)
        grown = averaged_grams(factors, g, axes, b2)
        due = (t == 1) | is_due(t, precondition_frequency, turn)
        found = branch(due, lambda: taken(tuple(map(eigenbasis, grown)), bases, failures), lambda: (bases, failures))
        return u, (grown, *found)

    return per_matrix(
        init,
        update,
        SPlusState,
        enter=enter,
        entering=("mu",),
        weight_dimension_numbers=weight_dimension_numbers,
        modes="all",
        uses_role=True,
        takes_turns=stagger,
    )


@transformation
def scale_by_splus_shape(
    other_scale: NonNegative = 0.001,
    *,
    max_precond_dim: PositiveInt = 10000,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """u = 2 / (inputs + outputs) g for matrices, other_scale g for what SPlus does not take as one.

    Args:
      other_scale: the factor of what gets sign(mu) in `scale_by_splus`.
      max_precond_dim, weight_dimension_numbers: see `scale_by_splus`.

    Reference: Frans et al. 2025, arXiv:2506.07254.
    """

    def update(g, slots, p, t, role):
        return g * (2 / sum(g.shape) if _axes(g.shape, role, max_precond_dim) else other_scale), slots

    return per_matrix(None, update, weight_dimension_numbers=weight_dimension_numbers, modes="all", uses_role=True)


@transformation
def splus(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    weight_decay: NonNegative = 0.01,
    *,
    precondition_frequency: PositiveInt = 100,
    ema: Decay | None = 0.999,
    other_scale: NonNegative = 0.001,
    max_precond_dim: PositiveInt = 10000,
    stagger: bool = False,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """SPlus: steps of one size in Shampoo's eigenbasis, and an average of the parameters for evaluation.

    p = p - learning_rate s (u + weight_decay p), with u of `scale_by_splus` and s of `scale_by_splus_shape`. The
    authors' learning rate is 0.3. Validate, save and deploy the average: `eval_params(state, params)`.

    Args:
      precondition_frequency, max_precond_dim, stagger, weight_dimension_numbers: see `scale_by_splus`.
      ema: the decay of the average of the parameters; None for none.
      other_scale: see `scale_by_splus_shape`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Frans et al. 2025, arXiv:2506.07254.
    """
    matrices: dict[str, Any] = dict(max_precond_dim=max_precond_dim, weight_dimension_numbers=weight_dimension_numbers)
    return chain(
        scale_by_splus(b1, b2, precondition_frequency=precondition_frequency, stagger=stagger, **matrices),
        add_decayed_weights(weight_decay, mask),
        scale_by_splus_shape(other_scale, **matrices),
        scale_by_lr(learning_rate),
        *([] if ema is None else [params_ema(ema, debias=True)]),
    )
