# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters as text."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

SHOWN = 4
"""How many numbers are shown one by one; of more, only the least and the greatest."""


def number_text(value: Any) -> str:
    """A number, the numbers of a stack, or a schedule by its value at step 0, as text; None is a traced number."""
    if value is None:
        return "from the state"
    if callable(value):
        return f"{number_text(at_start(value))} at step 0"
    if not isinstance(value, tuple):
        return f"{value:.6g}"
    if len(set(value)) == 1:
        return f"{value[0]:.6g}"
    return ", ".join(f"{x:.6g}" for x in value) if len(value) <= SHOWN else f"{min(value):.6g}..{max(value):.6g}"


def at_start(schedule: Callable) -> Any:
    """The value of a schedule at the first update."""
    values = np.asarray(schedule(jnp.zeros([], jnp.int32)), np.float64)
    return tuple(float(x) for x in values.ravel()) if values.ndim else float(values)
