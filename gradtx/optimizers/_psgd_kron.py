# SPDX-License-Identifier: Apache-2.0
"""PSGD-Kron: a triangular factor for each axis, fitted step by step so that preconditioned gradients are white."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._combine import chain
from gradtx.core._counts import safe_increment
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, Fraction, Limit, NonNegative, NonNegativeInt, Positive, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, one_minus_power, zeros_like
from gradtx.numerics._safe import root_mean_square, shrink_factor
from gradtx.numerics._triangular import balanced, initial_factors, preconditioned, whitened
from gradtx.schedules._decay import exponential_decay
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams

BALANCING = 0.01
"""How likely it is that factors are balanced before they move."""

NOISE = 2.0**-11.5
"""The noise in h relative to the mean of |m|: the root of float32's precision, for any dtype."""

ANNEALED = exponential_decay(1.0, 1000, math.exp(-1), 499, end_value=0.03)
"""exp(-(t - 500) / 1000) for steps t from 1, but at most 1 and at least 0.03."""


class PSGDKronState(NamedTuple):
    """The number of updates made and those since Q moved, the moving average of g, a tuple of Q for each parameter."""

    count: jax.Array
    since: jax.Array
    mu: Updates
    factors: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_psgd_kron(
    b1: Decay = 0.9,
    *,
    precondition_probability: Fraction = ANNEALED,
    precondition_lr: NonNegative = 0.1,
    init_scale: Positive = 1.0,
    max_size_triangular: PositiveInt = 8192,
    clip: Limit | None = 1.1,
    seed: NonNegativeInt = 0,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """PSGD's direction, with an upper triangular Q for each axis (written here for the two of a matrix):

    ```
    m = (average of g by b1) / (1 - b1^t)        h = m + 2^(-11.5) mean(|m|) V,    V normal
    A = Q1 h Q2ᵀ        B = Q1^(-ᵀ) V Q2^(-1)        every 1 / precondition_probability steps:
    Q1 = Q1 - precondition_lr triu(A Aᵀ - B Bᵀ) Q1 / ‖A Aᵀ + B Bᵀ‖        Q2 likewise of AᵀA and BᵀB
    u = Q1ᵀ Q1 m Q2ᵀ Q2        but its root mean square is at most `clip`
    ```

    With a probability of 0.01, all Q of a parameter get equal largest elements before they move. The norm is a lower
    bound. Vectors, axes of length 1 and axes longer than `max_size_triangular` have a diagonal Q. V depends on seed,
    step and shape. What comes out with NaN is not taken.

    Args:
      precondition_probability: 1 / the number of steps between two changes of Q; by default 1 in the first 500 steps,
        then less, down to 0.03.
      precondition_lr: the relative size of the steps of Q.
      init_scale: the first Q1 ⊗ Q2.
      max_size_triangular: the longest axis with a triangular Q.
      clip: None for no limit.
      weight_dimension_numbers: which axes are inputs and outputs of a matrix, as in `scale_by_muon`. None asks the
        roles; what has none there has a Q for each of its axes.

    References: Li 2015, arXiv:1512.04202; Li 2022, arXiv:2211.04422.
    """

    def init(p):
        return zeros_like(p), initial_factors(p, init_scale, max_size_triangular)

    def memory():
        return {"since": 0}

    def shared(t, total, memory):
        since = safe_increment(memory["since"])
        due = since.astype(t.dtype) * precondition_probability >= 1
        balance = jax.random.uniform(_keys(seed, t)[0]) < BALANCING
        return (due, balance), {"since": jnp.where(due, 0, since)}

    def enter(g, mu, p, t):
        mu = ema(mu, g, b1)
        return mu / one_minus_power(b1, t), mu

    def update(m, factors, p, t, common):
        due, balance = common
        x = jnp.atleast_1d(m)

        def moved():
            v = jax.random.normal(_keys(seed, t)[1], x.shape, x.dtype)
            h = x + NOISE * jnp.mean(jnp.abs(x)) * v
            before = branch(balance, lambda: balanced(factors), lambda: factors)
            return whitened(before, h, v, precondition_lr)

        new = branch(due, moved, lambda: factors)
        u = preconditioned(x, new).reshape(m.shape)
        return u if clip is None else u * shrink_factor(root_mean_square(u, clip), clip), new

    return per_matrix(
        init,
        update,
        PSGDKronState,
        enter=enter,
        entering=("mu",),
        memory=memory,
        shared=shared,
        weight_dimension_numbers=weight_dimension_numbers,
        modes="all",
    )


def _keys(seed: int, t: jax.Array) -> jax.Array:
    """The keys of a step: for whether to balance, and for V."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), t.astype(jnp.uint32)))


@transformation
def psgd_kron(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    *,
    precondition_probability: Fraction = ANNEALED,
    precondition_lr: NonNegative = 0.1,
    init_scale: Positive = 1.0,
    max_size_triangular: PositiveInt = 8192,
    clip: Limit | None = 1.1,
    seed: NonNegativeInt = 0,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """PSGD-Kron: preconditioned descent whose factors are fitted instead of computed; for all parameters.

    See `scale_by_psgd_kron` for the formula.

    Args:
      precondition_probability, precondition_lr, init_scale, max_size_triangular: see `scale_by_psgd_kron`.
      clip: the largest root mean square of u; None for no limit.
      mask: where to decay, see `add_decayed_weights`.
      weight_dimension_numbers: see `scale_by_psgd_kron`.

    References: Li 2015, arXiv:1512.04202; Li 2022, arXiv:2211.04422.
    """
    direction = scale_by_psgd_kron(
        b1,
        precondition_probability=precondition_probability,
        precondition_lr=precondition_lr,
        init_scale=init_scale,
        max_size_triangular=max_size_triangular,
        clip=clip,
        seed=seed,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate))
