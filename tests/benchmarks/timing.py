# SPDX-License-Identifier: Apache-2.0
"""Paired measurement: candidates run interleaved in one process, in a new random order each round.

Machines are noisy and the first in a fixed order pays for cold caches, so only ratios of medians are reported. As with
`timeit`, the garbage collector waits until a candidate is done: else one pays for what another left behind.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable

import jax


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each candidate; its result is waited for."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for function in candidates.values():
        jax.block_until_ready(function())
    order, rng = list(candidates), random.Random(0)
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            gc.collect()
            gc.disable()
            try:
                begin = time.perf_counter()
                jax.block_until_ready(candidates[name]())
                seconds[name].append(time.perf_counter() - begin)
            finally:
                gc.enable()
    return {name: statistics.median(times) for name, times in seconds.items()}


def report(title: str, medians: dict[str, float], over: str) -> None:
    """Prints each candidate's median and its ratio to the candidate `over`."""
    print(f"\n{title}")
    for name, seconds in medians.items():
        print(f"  {name:<32} {seconds * 1e3:10.2f} ms   {seconds / medians[over]:6.2f}x of {over}")
