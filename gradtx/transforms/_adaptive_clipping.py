# SPDX-License-Identifier: Apache-2.0
"""Clipping of the global norm to a threshold that is computed from the norms of earlier steps."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, Limit, NonNegativeInt, PositiveInt, Range
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.numerics import _windows as windows
from gradtx.numerics._averages import ema
from gradtx.numerics._safe import abs_sq, safe_sqrt, shrink_factor

Percentile = Annotated[Any, Range(low=0.0, high=100.0, example=50.0)]


class AutoClipState(NamedTuple):
    """The last norms, the number of them, and what the last update did; see `metrics`."""

    count: jax.Array
    norms: jax.Array
    filled: jax.Array
    norm: jax.Array
    threshold: jax.Array
    clip_factor: jax.Array
    clipped: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        return published(self)


class ZClipState(NamedTuple):
    """The number of norms averaged, their mean and variance, and what the last update did; see `metrics`."""

    count: jax.Array
    number: jax.Array
    mean: jax.Array
    variance: jax.Array
    norm: jax.Array
    threshold: jax.Array
    clip_factor: jax.Array
    clipped: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        return published(self)


class ClipSpikesState(NamedTuple):
    """The last norms, the number of them, the spikes in a row so far, and what the last update did; see `metrics`."""

    count: jax.Array
    norms: jax.Array
    filled: jax.Array
    in_a_row: jax.Array
    norm: jax.Array
    threshold: jax.Array
    clip_factor: jax.Array
    clipped: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        return published(self)


def published(state: Any) -> dict[str, jax.Array]:
    """The norm before clipping, the threshold and the factor of the last update; the fraction of all updates clipped.

    The threshold is 0 as long as there is none.
    """
    fraction = state.clipped / jnp.maximum(state.count, 1)
    return {
        "grad_norm": state.norm,
        "threshold": state.threshold,
        "clip_factor": state.clip_factor,
        "clipped_fraction": fraction,
    }


def shrunk(g: jax.Array, factor: jax.Array) -> jax.Array:
    """factor * g; a factor of 0, which an infinite norm causes, gives 0 even where g is infinite."""
    return jnp.where(factor > 0, factor * g, 0)


def _clip_by_history(
    state: type, start: Callable[[], dict], judge: Callable[[jax.Array, dict], tuple]
) -> GradientTransformationExtraArgs:
    """Clips the global norm to the threshold of `judge(norm, memory) -> (threshold, new memory)`; 0 means none."""
    nothing = {"norm": 0.0, "threshold": 0.0, "clip_factor": 1.0, "clipped": _none()}

    def measure(g, slots, p, t, memory):
        return jnp.sum(abs_sq(g))

    def shared(t, total, memory):
        norm = safe_sqrt(total)
        threshold, new = judge(norm, memory)
        factor = jnp.where(threshold > 0, shrink_factor(norm, threshold), 1)
        factor = jnp.where(jnp.isinf(norm), 0, factor)  # also while there is no threshold
        clipped = jnp.where(_over(norm, threshold), safe_increment(memory["clipped"]), memory["clipped"])
        return factor, {**new, "norm": norm, "threshold": threshold, "clip_factor": factor, "clipped": clipped}

    def update(g, slots, p, t, factor):
        return shrunk(g, factor), slots

    return per_parameter(None, update, state, measure=measure, shared=shared, memory=lambda: {**start(), **nothing})


def _none() -> jax.Array:
    return jnp.zeros([], jnp.int32)


def _empty(window: int) -> dict[str, jax.Array]:
    return {"norms": jnp.zeros(window), "filled": _none()}


def _over(norm: jax.Array, threshold: jax.Array) -> jax.Array:
    return (threshold > 0) & (norm > threshold)


@transformation
def autoclip(percentile: Percentile = 10.0, window: PositiveInt = 1000) -> GradientTransformationExtraArgs:
    """AutoClip: u = g min(1, c / ‖g‖), where c is a percentile of the last norms, including that of this step.

    The norm is over all gradients together; norms are remembered as they were before clipping. An infinite norm gives
    u = 0, NaN passes; neither is remembered. As long as c is 0, nothing is clipped.

    Args:
      percentile: in [0, 100]; 10, the paper's choice, clips nine steps out of ten.
      window: how many norms are remembered; the paper remembers all.

    Reference: Seetharaman et al. 2020, arXiv:2007.14469, algorithm 1.
    """

    def judge(norm, memory):
        norms, filled = windows.push(memory["norms"], memory["filled"], norm, jnp.isfinite(norm))
        return windows.quantile(norms, filled, percentile / 100), {"norms": norms, "filled": filled}

    return _clip_by_history(AutoClipState, lambda: _empty(window), judge)


@transformation
def zclip(
    z_threshold: Limit = 2.5,
    decay: Decay = 0.97,
    warmup_steps: PositiveInt = 25,
    to: Literal["reciprocal", "threshold", "mean"] = "reciprocal",
) -> GradientTransformationExtraArgs:
    """ZClip: if the global norm n lies more than z_threshold standard deviations above its mean, scales g to norm n':

    ```
    z = (n - mu) / sigma          n' = mu + sigma z_threshold² / z, or n where z <= z_threshold
    u = g n' / n          mu = decay mu + (1 - decay) n'          sigma² = decay sigma² + (1 - decay) (n' - mu)²
    ```

    z and n' use mu and sigma from before the step, sigma² uses mu from after it. An infinite norm gives u = 0, NaN
    passes; neither enters mu and sigma. Norms that rise permanently are clipped for a long time; `clip_spikes` has a
    `patience` for that.

    Args:
      z_threshold: in standard deviations.
      warmup_steps: the number of first norms that are not clipped; mu and sigma² start as their mean and variance.
      to: "reciprocal" for n' as above, "threshold" for mu + sigma z_threshold, "mean" for mu.

    Reference: Kumar et al. 2025, arXiv:2504.02507.
    """

    def judge(norm, memory):
        number, mean, sigma = memory["number"], memory["mean"], safe_sqrt(memory["variance"])
        known = number >= warmup_steps
        least = jnp.where(known, windows.limit(mean, sigma, z_threshold), 0)
        over = _over(norm, least)
        z = windows.z_score(norm, mean, sigma)
        height = {"reciprocal": z_threshold**2 / jnp.where(over, z, 1), "threshold": z_threshold, "mean": 0.0}[to]
        threshold = jnp.where(over, mean + sigma * height, least)
        n = jnp.where(over, threshold, norm)
        # A mean of the first norms is a moving average with a decay that changes.
        before = number.astype(mean.dtype)
        keep = jnp.where(known, decay, before / (before + 1))
        new_mean = ema(mean, n, keep)
        variance = ema(memory["variance"], (n - new_mean) * (n - jnp.where(known, new_mean, mean)), keep)
        new = {"number": safe_increment(number), "mean": new_mean, "variance": variance}
        ok = jnp.isfinite(norm)
        return threshold, {name: jnp.where(ok, x, memory[name]) for name, x in new.items()}

    return _clip_by_history(ZClipState, lambda: {"number": _none(), "mean": 0.0, "variance": 0.0}, judge)


@transformation
def clip_spikes(
    deviations: Limit = 6.0,
    window: PositiveInt = 128,
    min_history: PositiveInt = 16,
    patience: NonNegativeInt = 10,
    statistic: Literal["mean", "median"] = "mean",
) -> GradientTransformationExtraArgs:
    """u = g min(1, c / ‖g‖) with c = mean + deviations * standard deviation of the last norms that were not spikes.

    A norm above c is a spike. It does not enter the window, so it does not raise later thresholds. An infinite norm
    gives u = 0, NaN passes; neither enters the window. The norm is over all gradients together.

    Args:
      deviations: how many standard deviations above the mean the threshold lies.
      window: how many norms are remembered.
      min_history: how many norms must be remembered before anything is clipped, at most `window`.
      patience: after this many spikes in a row, further ones enter the window: the norms have risen permanently.
      statistic: "mean" as above, or "median" for the median and 1.4826 times the median absolute deviation.

    Raises:
      ValueError: if `min_history` is larger than `window`.

    See also `guard`, which skips such steps.
    """
    if min_history > window:
        raise ValueError(
            f"clip_spikes: min_history must be at most window, which is {window}, got {min_history}: "
            f"nothing would ever be clipped"
        )
    describe = {"mean": windows.mean_and_std, "median": windows.median_and_mad}[statistic]

    def judge(norm, memory):
        norms, filled = memory["norms"], memory["filled"]
        threshold = jnp.where(filled >= min_history, windows.limit(*describe(norms, filled), deviations), 0)
        over = _over(norm, threshold)
        in_a_row = jnp.where(over, safe_increment(memory["in_a_row"]), 0)
        enters = jnp.isfinite(norm) & (~over | (in_a_row > patience))
        norms, filled = windows.push(norms, filled, norm, enters)
        return threshold, {"norms": norms, "filled": filled, "in_a_row": in_a_row}

    return _clip_by_history(ClipSpikesState, lambda: {**_empty(window), "in_a_row": _none()}, judge)
