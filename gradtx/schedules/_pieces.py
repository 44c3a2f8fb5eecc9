# SPDX-License-Identifier: Apache-2.0
"""Pieces of which to compose schedules, in units of the peak: `3e-4 * warmup(1000).then(cosine(9000))`.

Each decay with an end goes from 1 to `end` in `steps` updates and then stays there; from the start, if `steps` is 0.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from gradtx.core._ranges import LimitOrZero, NonNegative, Positive, Real
from gradtx.core._types import ScheduleFn
from gradtx.schedules import _curves as curves
from gradtx.schedules._schedule import Lasting, composition
from gradtx.schedules._steps import floating, in_floats, since


def _piece(curve: Callable, start: Any, end: Any, steps: Any) -> Lasting:
    def at(count):
        return curve(since(count, 0), *in_floats(count, start, end), steps)

    return Lasting(at, steps)


@composition
def warmup(steps: LimitOrZero, start: Real = 0.0) -> ScheduleFn:
    """Linear growth from `start` to 1: start + (1 - start) min(t / steps, 1).

    With t from 0, the first update gets `start`. `warmup(steps).shift(-1)` is min((t + 1) / steps, 1).

    Args:
      steps: the step t from which on the value is 1; 0 for no warm-up.
      start: the first value, as a fraction of the peak.
    """
    return _piece(curves.linear, start, 1.0, steps)


@composition
def constant(steps: LimitOrZero | None = None) -> ScheduleFn:
    """The value 1.

    Args:
      steps: the length, after which `then` continues with another schedule; None for no end.
    """

    def at(count):
        return jnp.ones_like(floating(count))

    return at if steps is None else Lasting(at, steps)


@composition
def linear(steps: LimitOrZero, end: Real = 0.0) -> ScheduleFn:
    """Linear decay: end + (1 - end) (1 - p), p = min(t / steps, 1).

    Args:
      steps: the number of updates until the end.
      end: the last value, as a fraction of the peak.
    """
    return _piece(curves.linear, 1.0, end, steps)


@composition
def cosine(steps: LimitOrZero, end: Real = 0.0) -> ScheduleFn:
    """Decay along half a period of a cosine: end + (1 - end) (1 + cos(pi p)) / 2, p = min(t / steps, 1).

    Args:
      steps: the number of updates until the end.
      end: the last value, as a fraction of the peak.

    Reference: Loshchilov and Hutter 2016, arXiv:1608.03983.
    """
    return _piece(curves.cosine, 1.0, end, steps)


@composition
def one_minus_sqrt(steps: LimitOrZero, end: Real = 0.0) -> ScheduleFn:
    """Decay that is steep at first: end + (1 - end) (1 - sqrt(p)), p = min(t / steps, 1).

    A cooldown after a constant rate. The derivative at p = 0, which is infinite, is returned as 0.

    Args:
      steps: the number of updates until the end.
      end: the last value, as a fraction of the peak.

    Reference: Hägele et al. 2024, arXiv:2405.18392.
    """
    return _piece(curves.one_minus_sqrt, 1.0, end, steps)


@composition
def one_minus_square(steps: LimitOrZero, end: Real = 0.0) -> ScheduleFn:
    """Decay that is steep at the end: end + (1 - end) (1 - p^2), p = min(t / steps, 1).

    Args:
      steps: the number of updates until the end.
      end: the last value, as a fraction of the peak.
    """
    return _piece(curves.one_minus_square, 1.0, end, steps)


@composition
def rex(steps: LimitOrZero, end: Real = 0.0) -> ScheduleFn:
    """Decay between a line and a delayed line: end + (1 - end) (1 - p) / (1 - p / 2), p = min(t / steps, 1).

    Args:
      steps: the number of updates until the end.
      end: the last value, as a fraction of the peak.

    Reference: Chen et al. 2021, arXiv:2107.04197.
    """
    return _piece(curves.rex, 1.0, end, steps)


@composition
def inverse_sqrt(timescale: Positive, shift: NonNegative = 0) -> ScheduleFn:
    """Decay without an end: 1 / sqrt(1 + (t + shift) / timescale).

    `warmup(w).then(inverse_sqrt(w))` is the schedule of the Transformer, min(t / w, sqrt(w / t)). For a cooldown over
    the last c of n steps, multiply by `linear(c).until(n)`.

    Args:
      timescale: the number of steps after which the value has fallen to 1 / sqrt(2), if `shift` is 0.
      shift: a number that is added to t, to begin further along the decay.

    Reference: Vaswani et al. 2017, arXiv:1706.03762.
    """

    def at(count):
        scale, begin = in_floats(count, timescale, shift)
        return 1.0 / jnp.sqrt(1.0 + (floating(since(count, 0)) + begin) / scale)

    return at
