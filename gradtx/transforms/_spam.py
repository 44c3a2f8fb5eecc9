# SPDX-License-Identifier: Apache-2.0
"""The stages of SPAM and Stable-SPAM: clipping of single elements that spike, and stabilizing of norms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._counts import safe_increment
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, Limit, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates
from gradtx.numerics._averages import ema, one_minus_power, zeros_like
from gradtx.numerics._ratios import l2_norm
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.tree._reductions import global_norm


class SpamClipState(NamedTuple):
    """The average of u², the number of elements of each parameter that the last update clipped, and the number of all
    elements.
    """

    nu: Updates
    clipped: Updates
    elements: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        return {"clipped_fraction": safe_divide(_sum(self.clipped), self.elements)}


class StableSpamClipState(NamedTuple):
    """For each parameter the average of max |g|, the number of values in it and the elements clipped; the number of all
    elements.
    """

    max_average: Updates
    number: Updates
    clipped: Updates
    elements: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        return {"clipped_fraction": safe_divide(_sum(self.clipped), self.elements)}


class StabilizeNormState(NamedTuple):
    """For each parameter the averages of ‖g‖ and ‖g‖², the number of values in them, and the last ‖g‖ and ‖u‖."""

    norm_average: Updates
    square_average: Updates
    number: Updates
    norm_before: Updates
    norm_after: Updates

    def metrics(self) -> dict[str, jax.Array]:
        """The global norm, and the factor by which the last update changed it."""
        before, after = global_norm(self.norm_before), global_norm(self.norm_after)
        return {"grad_norm": before, "factor": safe_divide(after, before)}


def _sum(counts: Updates) -> jax.Array:
    # As floats: the count of one parameter fits into 32 bits, but the sum may not.
    return sum((x.astype(jnp.result_type(float)) for x in jax.tree.leaves(counts)), jnp.zeros([]))


# Counts all elements. Clipped elements are counted by the rule itself, without a second pass over the gradients.
_COUNTING = {
    "measure": lambda g, slots, p, t, memory: jnp.asarray(float(g.size)),
    "shared": lambda t, total, memory: ((), {"elements": total}),
    "memory": lambda: {"elements": 0.0},
}


@transformation
def spam_clip(threshold: Limit = 5000.0, b2: Decay = 0.999) -> GradientTransformationExtraArgs:
    """SPAM's spike-aware clipping: u = sign(g) sqrt(threshold nu) where g² > threshold nu, else g, elementwise.

    nu = b2 nu + (1 - b2) u² is Adam's second moment without bias correction, used as it was before this step. Where nu
    is 0, as at the first step, nothing is clipped. Non-finite elements do not enter nu.

    SPAM is `chain(spam_clip(b2=b2), scale_by_adam(b2=b2), ...)` in `reset_every(..., 500)`, with a warm-up of the
    learning rate after each reset.

    Args:
      threshold: the largest ratio g² / nu that passes unchanged.
      b2: the decay of nu.

    Reference: Huang et al. 2025, arXiv:2501.06842.
    """

    def init(p):
        return zeros_like(p, real=True), jnp.zeros([], jnp.int32)

    def update(g, slots, p, t, common):
        nu = slots[0]
        spike = (nu > 0) & (abs_sq(g) > threshold * nu)
        u = jnp.where(spike, jnp.sign(g) * safe_sqrt(threshold * nu), g)
        square = abs_sq(u)
        return u, (jnp.where(jnp.isfinite(square), ema(nu, square, b2), nu), reductions.total(spike))

    return per_parameter(init, update, SpamClipState, **_COUNTING)


@transformation
def stable_spam_clip(decay: Decay = 0.999) -> GradientTransformationExtraArgs:
    """Stable-SPAM's AdaClip, for each parameter separately:

    ```
    M = decay M + (1 - decay) max |g|          c = M / (1 - decay^t)
    u = g c / max |g| where |g| > c, else g
    ```

    A gradient with a non-finite element does not change M and does not count as a step; its infinite elements become
    ± c, NaNs stay.

    Stable-SPAM is `chain(stable_spam_clip(), stabilize_norm(), reset_every(scale_by_adam(), 1000), ...)`.

    Reference: Huang et al. 2025, arXiv:2502.17055.
    """

    def init(p):
        return jnp.zeros([], jnp.real(p).dtype), jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)

    def update(g, slots, p, t, common):
        average, number, _ = slots
        size = jnp.abs(g)
        largest = reductions.largest(jnp.where(jnp.isnan(size), 0, size), initial=0.0)
        ok = ~reductions.anywhere(~jnp.isfinite(size))
        average = jnp.where(ok, ema(average, largest, decay), average)
        number = jnp.where(ok, safe_increment(number), number)
        known = number > 0
        c = average / jnp.where(known, one_minus_power(decay, number), 1)
        over = known & (size > c)
        relative = jnp.where(jnp.isinf(size), jnp.sign(g), g / jnp.where(largest > 0, largest, 1))
        return jnp.where(over, c * relative, g), (average, number, reductions.total(over))

    return per_parameter(init, update, StableSpamClipState, **_COUNTING)


@transformation
def stabilize_norm(b1: Decay = 0.7, b2: Decay = 0.9, eps: NonNegative = 1e-8) -> GradientTransformationExtraArgs:
    """Stable-SPAM's AdaGN, also called GradientStabilizer, for each parameter separately:

    ```
    m = b1 m + (1 - b1) ‖g‖          v = b2 v + (1 - b2) ‖g‖²
    u = g / ‖g‖ * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
    ```

    ‖u‖ is near 1 while the norms are steady and bounded after any spike; it is 0 for a gradient of 0. An infinite ‖g‖
    gives u = 0, NaN gives NaN; neither enters the averages or counts as a step.

    Args:
      b1, b2: the decays of the averages of ‖g‖ and ‖g‖².

    Reference: Huang et al. 2025, arXiv:2502.17055.
    """

    def init(p):
        zero = jnp.zeros([], jnp.real(p).dtype)
        return zero, jnp.copy(zero), jnp.zeros([], jnp.int32), jnp.copy(zero), jnp.copy(zero)

    def update(g, slots, p, t):
        m, v, number, *_ = slots
        norm = l2_norm(g)
        ok = jnp.isfinite(norm)
        m = jnp.where(ok, ema(m, norm, b1), m)
        v = jnp.where(ok, ema(v, norm**2, b2), v)
        number = jnp.where(ok, safe_increment(number), number)
        known = number > 0
        of_m, of_v = (jnp.where(known, one_minus_power(b, number), 1) for b in (b1, b2))
        size = safe_divide(m / of_m, safe_sqrt(v / of_v) + eps)
        after = jnp.where(jnp.isfinite(norm) & (norm > 0), size, 0)
        u = jnp.where(jnp.isinf(norm), 0, safe_divide(size, norm) * g)
        return u, (m, v, number, norm, after)

    return per_parameter(init, update, StabilizeNormState)
