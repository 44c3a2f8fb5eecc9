# SPDX-License-Identifier: Apache-2.0
"""Whether a metric still improves."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment

Mode = Literal["min", "max"]


def worst(mode: Mode) -> float:
    """The value that every finite metric is better than."""
    return float("inf") if mode == "min" else float("-inf")


def improves(value: jax.Array, best: jax.Array, rtol: Any, atol: Any, mode: Mode) -> jax.Array:
    """Whether `value` is better than `best` by more than rtol |best| + atol; never for a value that is not finite.

    The margin depends on |best|: the threshold best (1 - rtol) would lie above a negative best, so that an unchanged
    metric would count as an improvement.
    """
    margin = jnp.where(jnp.isfinite(best), rtol * jnp.abs(best) + atol, 0)
    better = value < best - margin if mode == "min" else value > best + margin
    return jnp.isfinite(value) & better


def watch(memory: dict, value: jax.Array, size: int, rtol: Any, atol: Any, mode: Mode) -> tuple:
    """Adds a value: returns whether it completes a mean of `size` values, whether that mean improves, and the memory.

    The memory holds the best mean, the number of means since, and the count and mean of the values of the next mean.
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
