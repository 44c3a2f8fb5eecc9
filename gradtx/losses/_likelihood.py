# SPDX-License-Identifier: Apache-2.0
"""Negative log-likelihoods of numbers, entry by entry: counts with a Poisson distribution, errors with a normal one."""

import math

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Mask
from gradtx.core._ranges import NonNegative, Positive
from gradtx.losses._common import clamped, elementwise, safe_product, scalar


@checked
def poisson_nll_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: NonNegative = 1e-8,
    where: Mask | None = None,
) -> jax.Array:
    """rate - target log(rate), entry by entry: -log of the probability of a count, without the term log(target!).

    Args:
      predictions: log(rate), which may be -inf; with log_input=False the rate itself, at least 0.
      targets: counts, at least 0, of the shape of the predictions.
      log_input: whether the predictions are logarithms of rates.
      full: whether to add Stirling's approximation of log(target!), t log t - t + ½ log(2π t), where t > 1.
      eps: at least 0, added to the rate inside the logarithm; without effect if the predictions are logarithms.
      where: True for the entries that count; the loss is 0 elsewhere.

    Raises: ValueError if the shapes differ or `eps` is negative.
    """
    name = "poisson_nll_loss"

    def loss(x: jax.Array, t: jax.Array) -> jax.Array:
        shift = scalar(eps, x)
        if log_input:
            rate, log_rate = jnp.exp(x), x
        else:
            # For a count of 0 of rate 0 there is no logarithm, nor a derivative of it.
            nothing = (t == 0) & (x + shift == 0)
            rate, log_rate = x, jnp.log(jnp.where(nothing, 1, x + shift))
        # Where the rate is infinite, the other term is negligible.
        likelihood = rate - jnp.where(jnp.isposinf(rate), 0, safe_product(t, log_rate))
        return likelihood + _stirling(t) if full else likelihood

    return elementwise(name, loss, where, predictions=predictions, targets=targets)


@checked
def gaussian_nll_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    variances: ArrayLike,
    *,
    full: bool = False,
    eps: Positive = 1e-6,
    where: Mask | None = None,
) -> jax.Array:
    """½ (log v + (prediction - target)² / v) with v = max(variance, eps), entry by entry.

    Derivatives are those at v, also for a variance below `eps`, so that it can grow again.

    Args:
      predictions: the means.
      targets: of the shape of the predictions.
      variances: of the same shape, or with a last axis of size 1; the loss of a negative one is NaN.
      full: whether to add the constant ½ log(2π).
      eps: the least variance; a positive scalar.
      where: True for the entries that count; the loss is 0 elsewhere.

    Raises: ValueError if the shapes differ or `eps` is not positive.

    Reference: Nix and Weigend 1994, doi:10.1109/ICNN.1994.374138.
    """
    name = "gaussian_nll_loss"

    def loss(mean: jax.Array, t: jax.Array, variance: jax.Array) -> jax.Array:
        least = scalar(eps, mean)
        v = clamped(jnp.where(variance < 0, jnp.nan, variance), least)
        deviations = (mean - t) / jnp.sqrt(v)  # the square of the error may overflow
        return 0.5 * (jnp.log(v) + deviations * deviations + (math.log(2 * math.pi) if full else 0))

    return elementwise(name, loss, where, predictions=predictions, targets=targets, variances=variances)


def _stirling(t: jax.Array) -> jax.Array:
    large = t > 1
    t = jnp.where(large, t, 1)
    return jnp.where(large, t * jnp.log(t) - t + 0.5 * jnp.log(2 * math.pi * t), 0)
