# SPDX-License-Identifier: Apache-2.0
"""Prodigy: D-Adaptation whose estimate grows faster, since it also weights the gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._distance import inner, larger_estimate
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._dadapt import bias_corrected, pair_of
from gradtx.wrappers._masked import MaskOfParams, masked


class ProdigyState(NamedTuple):
    """The averages mu and nu, the sum s, the initial p, the estimate d, its numerator r, and the number of updates."""

    exp_avg: Updates
    exp_avg_sq: Updates
    grad_sum: Updates
    params0: Params
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array

    counts_from = {"count": 0}


def _rate(learning_rate: Any, b1: Any, b2: Any, t: jax.Array, bias_correction: bool) -> Any:
    """What d is multiplied by."""
    return bias_corrected(learning_rate, b1, b2, t) if bias_correction else learning_rate


def _shrunk(u, slots, p, t, factor):
    return u - factor * p, slots


# Made once, so that it is compiled once.
_SHRINK = per_parameter(None, _shrunk, shared=lambda t, total, factor: factor, needs=("factor",), needs_params=True)


@transformation
def scale_by_prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    estim_lr_coef: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    safeguard_warmup: bool = False,
    *,
    bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """Prodigy. The update is complete: it includes the sign, the learning rate and the weight decay.

    ```
    w = d learning_rate sqrt(1 - b2^t) / (1 - b1^t)      a = d / estim_lr0
    mu = b1 mu + (1 - b1) d g                            nu = b2 nu + (1 - b2) (d g)²
    r = b3 r + a w <g, p_1 - p>                          s = b3 s + a w g
    d = max(d, estim_lr_coef r / ‖s‖_1)
    u = -w mu / (sqrt(nu) + d eps) - w weight_decay p
    ```

    The initial parameter is p_1.

    Args:
      b3: the decay of r and s; None for sqrt(b2).
      estim_lr0: the initial d, which should be below the distance to the solution.
      estim_lr_coef: the factor of the estimate; smaller values make smaller steps.
      safeguard_warmup: True has d in place of w in s, against overestimates while the learning rate warms up.
      bias_correction: False leaves the factor sqrt(1 - b2^t) / (1 - b1^t) out of w, as the paper does.

    Reference: Mishchenko and Defazio 2023, arXiv:2306.06101, algorithm 4.
    """

    def rate(t):
        return _rate(learning_rate, b1, b2, t, bias_correction)

    def summed(s, g, d, w):
        c = b2**0.5 if b3 is None else b3
        return c * s + d / estim_lr0 * (d if safeguard_warmup else w) * g

    def measure(g, slots, p, t, memory):
        (_, _, s, first), d = slots, memory["estim_lr"]
        w = d * rate(t)
        return d / estim_lr0 * w * inner(g, first - p), jnp.sum(jnp.abs(summed(s, g, d, w)))

    def shared(t, total, memory):
        d, c = memory["estim_lr"], b2**0.5 if b3 is None else b3
        numerator = c * memory["numerator_weighted"] + total[0]
        larger = larger_estimate(d, estim_lr_coef * numerator, total[1])
        return (d, d * rate(t), larger), {"estim_lr": larger, "numerator_weighted": numerator}

    def update(g, slots, p, t, common):
        (mu, nu, s, first), (d, w, larger) = slots, common
        mu, nu = ema(mu, d * g, b1), ema(nu, abs_sq(d * g), b2)
        u = -w * (safe_divide(mu, safe_sqrt(nu) + larger * eps) + weight_decay * p)
        return u, (mu, nu, summed(s, g, d, w), first)

    return per_parameter(
        lambda p: (zeros_like(p), zeros_like(p, real=True), zeros_like(p), jnp.copy(p)),
        update,
        ProdigyState,
        measure=measure,
        shared=shared,
        memory=lambda: {"estim_lr": estim_lr0, "numerator_weighted": 0.0},
        needs_params=True,
    )


@transformation
def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    beta3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    estim_lr_coef: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    safeguard_warmup: bool = False,
    weight_decay_mask: MaskOfParams | None = None,
    *,
    bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """AdamW whose learning rate Prodigy estimates; `learning_rate` multiplies the estimate.

    See `scale_by_prodigy` for the formula.

    Args:
      betas: the pair of b1 and b2.
      beta3: the b3 of `scale_by_prodigy`.
      estim_lr0, estim_lr_coef, safeguard_warmup, bias_correction: see `scale_by_prodigy`.
      weight_decay_mask: where to decay, see `add_decayed_weights`.

    Reference: Mishchenko and Defazio 2023, arXiv:2306.06101.
    """
    b1, b2 = pair_of("prodigy", betas)
    factors: dict[str, Any] = dict(estim_lr0=estim_lr0, estim_lr_coef=estim_lr_coef)
    options: dict[str, Any] = dict(safeguard_warmup=safeguard_warmup, bias_correction=bias_correction)
    if weight_decay_mask is None:
        return scale_by_prodigy(learning_rate, b1, b2, beta3, eps, weight_decay=weight_decay, **factors, **options)
    plain = scale_by_prodigy(learning_rate, b1, b2, beta3, eps, **factors, **options)
    tx, decaying = as_inner("prodigy", plain), as_inner("prodigy", masked(_SHRINK, weight_decay_mask))

    def update(
        updates: Updates, state: ProdigyState, params: Params = None, **extra: Any
    ) -> tuple[Updates, ProdigyState]:
        u, new = tx.update(updates, state, params, **extra)
        w = state.estim_lr * _rate(learning_rate, b1, b2, jnp.asarray(new.count, state.estim_lr.dtype), bias_correction)
        # Its state holds no numbers, so none is kept.
        shrunk, _ = decaying.update(u, decaying.init(params), params, factor=w * weight_decay)
        return shrunk, new

    return GradientTransformationExtraArgs(tx.init, update, parts=lambda state: {"": (plain, state)})
