# SPDX-License-Identifier: Apache-2.0
"""Paired measurement: candidates run interleaved in one process, in a new random order each round.

Machines are noisy and the first in a fixed order pays for cold caches, so what is compared are the two times of one
round: a ratio is the median of the ratios of all rounds. As with `timeit`, the garbage collector waits until a
candidate is done: else one pays for what another left behind.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

Laps = dict[str, float]
"""The seconds of each part of what a candidate did."""


class Effort(NamedTuple):
    """How long candidates are run: until `seconds` are over, but so many rounds at least and at most."""

    seconds: float
    at_least: int
    at_most: int
    clock: Callable[[], float] = time.perf_counter


class Times(NamedTuple):
    """For each candidate the seconds of each round."""

    rounds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, over: str) -> float:
        """The median of the ratios of each round."""
        return statistics.median(x / y for x, y in zip(self.rounds[name], self.rounds[over], strict=True))


def timed(name: str, function: Callable[[], object], clock: Callable[[], float]) -> Callable[[], Laps]:
    """A candidate with one part: all that the function does, until its result is there."""

    def run() -> Laps:
        begin = clock()
        jax.block_until_ready(function())
        return {name: clock() - begin}

    return run


def interleaved(candidates: dict[str, Callable[[], Laps]], effort: Effort) -> dict[str, Times]:
    """The times of all candidates, by the part of their work. What must be warm has run before."""
    found: list[dict[str, Laps]] = []
    order, rng, begin = list(candidates), random.Random(0), time.perf_counter()
    with collector_paused():
        while len(found) < effort.at_most:
            spent = time.perf_counter() - begin
            # Where a single round takes very long, fewer must do.
            enough = len(found) >= effort.at_least or spent > 10 * effort.seconds
            if found and enough and spent > effort.seconds:
                break
            rng.shuffle(order)
            laps = {}
            for name in order:
                gc.collect()
                laps[name] = candidates[name]()
            found.append(laps)
    parts = next(iter(found[0].values()))
    return {part: Times({name: [laps[name][part] for laps in found] for name in candidates}) for part in parts}


@contextmanager
def collector_paused() -> Iterator[None]:
    """It runs only when called, and looks only at what is made inside: all objects would take a tenth of a second."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
