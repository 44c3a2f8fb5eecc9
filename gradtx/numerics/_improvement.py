# SPDX-License-Identifier: Apache-2.0
"""Whether a metric still improves."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment

Mode = Literal["min", "max"]


def worst(mode: Mode) -> float:
    """What every finite metric is better than."""
    return float("inf") if mode == "min" else float("-inf")


def improves(value: jax.Array, best: jax.Array, rtol: Any, atol: Any, mode: Mode) -> jax.Array:
    """Whether `value` is better than `best` by more than rtol |best| + atol; what is not finite is not better.

    The margin is measured by |best|: best (1 - rtol), which is below a positive best, lies above a negative one, and a
    metric that stands still would be an improvement.
    """
    margin = jnp.where(jnp.isfinite(best), rtol * jnp.abs(best) + atol, 0)
    better = value < best - margin if mode == "min" else value > best + margin
    return jnp.isfinite(value) & better


def watch(memory: dict, value: jax.Array, size: int, rtol: Any, atol: Any, mode: Mode) -> tuple:
    """Takes one more value in; returns whether it completes a mean of `size`, whether that improves, and the memory.

    The memory is the best mean, how many came since, and the number and the mean of the values of the next.
    """
    count = memory["count"] + 1
    average = memory["avg_value"]
    average = average + (value.astype(average.dtype) - average) / count.astype(average.dtype)
    due = count == size
    better = due & improves(average, memory["best_value"], rtol, atol, mode)
    waiting = jnp.where(due, safe_increment(memory["plateau_count"]), memory["plateau_count"])
    return (
        due,
        better,
        {
            "best_value": jnp.where(better, average, memory["best_value"]),
            "plateau_count": jnp.where(better, 0, waiting),
            "count": jnp.where(due, 0, count),
            "avg_value": jnp.where(due, 0, average),
        },
    )
