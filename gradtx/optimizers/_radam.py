# SPDX-License-Identifier: Apache-2.0
"""RAdam: Adam that does not scale until the second moment is reliable, and then rectifies its scaling."""

import functools
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegative, Range
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, unbiased, weighted, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.transforms._scaling import scale_by_lr

# Below 4, the rectification would be the root of a negative number.
Threshold = Annotated[Any, Range(low=4.0, example=5.0)]

# B_2k 2 / (2k)! for the Bernoulli numbers B_2k: coth(x/2) - 2/x is x times the series in x².
SERIES = [1 / 6, -1 / 360, 1 / 15120, -1 / 604800, 1 / 23950080, -691 / 653837184000]


def _excess(x: jax.Array) -> jax.Array:
    """coth(x / 2) - 2 / x for x > 0."""
    small, large = jnp.minimum(x, 0.5), jnp.maximum(x, 0.5)
    series = small * functools.reduce(lambda total, a: total * small**2 + a, reversed(SERIES))
    return jnp.where(x < 0.5, series, 1 / jnp.tanh(large / 2) - 2 / large)


def _rate(b2: Any, t: jax.Array) -> jax.Array:
    """-log(b2), computed in double precision if b2 is a Python number."""
    if isinstance(b2, int | float):
        return jnp.asarray(-math.log(b2) if b2 > 0 else math.inf, t.dtype)
    return -jnp.log(b2)


def _lengths(b2: Any, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The length of the simple moving average that is like one with decay b2, after t steps and in the limit.

    2 / (1 - b2) - 1 - 2 t b2^t / (1 - b2^t) and its limit 2 / (1 - b2) - 1, computed from -log(b2) so that nearly equal
    numbers are not subtracted: at first those of this formula (1,999 and 1,993 for b2 = 0.999 at step 6), later t and
    t times a number near 1.
    """
    rate = _rate(b2, t)
    x = rate * t
    left = jnp.exp(-jnp.maximum(x, 0.5))  # b2^t
    length = jnp.where(x < 0.5, t * (1 - _excess(jnp.minimum(x, 0.5))), 2 / rate - 2 * t * left / (1 - left))
    return length + _excess(rate), 2 / rate + _excess(rate)


@transformation
def scale_by_radam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Threshold = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """RAdam's direction, with Adam's moments mu and nu and m = mu / (1 - b1^t):

    ```
    r_max = 2 / (1 - b2) - 1          r = r_max - 2 t b2^t / (1 - b2^t)
    c = sqrt((r - 4) (r - 2) r_max / ((r_max - 4) (r_max - 2) r))
    u = c m / (sqrt(nu / (1 - b2^t) + eps_root) + eps) if r >= threshold, else m
    ```

    Args:
      threshold: the least r at which m is scaled: 4 in the paper, 5 in the authors' code and PyTorch.
      nesterov: True makes m the numerator of `scale_by_adam(nesterov=True)`.

    Reference: Liu et al. 2019, arXiv:1908.03265, algorithm 2.
    """

    def shared(t, total):
        r, r_max = _lengths(b2, t)
        adapts = (r > 4) & (r >= threshold)
        r, r_max = jnp.where(adapts, r, 5), jnp.where(adapts, r_max, 5)
        c = jnp.sqrt((r - 4) * (r - 2) * r_max / ((r_max - 4) * (r_max - 2) * r))
        return adapts, c, unbiased(b1, t, nesterov), correction(b2, t)

    def update(g, slots, p, t, common):
        (mu, nu), (adapts, c, of_mu, of_nu) = slots, common
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        scale = jnp.where(adapts, safe_divide(c, safe_sqrt(of_nu * nu + eps_root) + eps), 1)
        return scale * weighted(mu, g, of_mu), (mu, nu)

    return per_parameter(lambda p: (zeros_like(p), zeros_like(p, real=True)), update, ScaleByAdamState, shared=shared)


@transformation
def radam(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Threshold = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """RAdam: Adam with a warmup of its own, derived from the variance of the scaling.

    See `scale_by_radam` for the formula.

    Args:
      threshold: the length of average at which the scaling begins, see `scale_by_radam`.

    Reference: Liu et al. 2019, arXiv:1908.03265.
    """
    return chain(scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov), scale_by_lr(learning_rate))
