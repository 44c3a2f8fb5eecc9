# SPDX-License-Identifier: Apache-2.0
"""What can be said of few seeds: an exact sign test, an interval by bootstrap."""

import math
from typing import NamedTuple

import numpy as np

LEVEL = 0.05
"""A difference is significant if chance alone gave one as one-sided in fewer cases."""
RESAMPLES = 10_000


class Signs(NamedTuple):
    """On how many seeds one of two numbers is less, on how many it is more, and the probability of that by chance."""

    fewer: int
    more: int
    p: float


def sign_test(a: np.ndarray, b: np.ndarray) -> Signs:
    """Pairs a seed with itself and counts signs, two-sided; equal pairs, such as two infinite ones, are left out."""
    fewer, more = int((a < b).sum()), int((a > b).sum())
    n, least = fewer + more, min(fewer, more)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    return Signs(fewer, more, min(2 * tail, 1.0))


def interval(values: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of the mean: percentiles of the means of seeds drawn with replacement."""
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    means = np.sort(values[drawn].mean(1))
    return float(means[int(0.025 * RESAMPLES)]), float(means[int(0.975 * RESAMPLES) - 1])


class Basin(NamedTuple):
    """The rates around the best one that reach the target, as factors; `open_ends` are those of the grid."""

    low: float
    high: float
    open_ends: tuple[bool, bool]

    @property
    def width(self) -> float:
        return self.high / self.low

    def __str__(self) -> str:
        return f"{'>= ' if any(self.open_ends) else ''}{self.width:.3g}x"


def basin(factors: np.ndarray, losses: np.ndarray, target: float) -> Basin | None:
    """The factors around the one with the least loss whose loss is at most the target; None if there are none.

    Between two factors the loss is taken to be linear in the logarithm of the factor; next to an infinite one, the
    basin ends at the last finite factor.
    """
    best = int(np.argmin(losses))
    if not losses[best] <= target:
        return None
    low, open_low = _edge(factors, losses, target, best, -1)
    high, open_high = _edge(factors, losses, target, best, 1)
    return Basin(low, high, (open_low, open_high))


def _edge(factors: np.ndarray, losses: np.ndarray, target: float, i: int, way: int) -> tuple[float, bool]:
    while 0 <= i + way < len(factors) and losses[i + way] <= target:
        i += way
    if not 0 <= i + way < len(factors):
        return float(factors[i]), True
    part = (target - losses[i]) / (losses[i + way] - losses[i])
    return float(factors[i] * (factors[i + way] / factors[i]) ** part), False
