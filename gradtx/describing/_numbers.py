# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters as text."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx.core._sentences import MOST


def number_text(value: Any) -> str:
    """A number, the numbers of a stack, or a schedule, by its value at step 0; None is a number that is traced.

    Of many numbers of a stack, the least and the greatest are shown.
    """
    if value is None:
        return "from the state"
    if callable(value):
        return f"{number_text(at_start(value))} at step 0"
    if not isinstance(value, tuple):
        return f"{value:.6g}"
    if len(set(value)) == 1:
        return f"{value[0]:.6g}"
    return f"{min(value):.6g}..{max(value):.6g}" if len(value) > MOST else ", ".join(f"{x:.6g}" for x in value)


def at_start(schedule: Callable[..., Any]) -> Any:
    """The value of a schedule at the first update."""
    values = np.asarray(schedule(jnp.zeros([], jnp.int32)), np.float64)
    return tuple(float(x) for x in values.ravel()) if values.ndim else float(values)
