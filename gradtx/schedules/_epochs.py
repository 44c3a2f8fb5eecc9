# SPDX-License-Identifier: Apache-2.0
"""Boundaries in epochs."""

import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._ranges import NonNegative, Positive, Range, is_number
from gradtx.core._types import Numeric
from gradtx.schedules._checks import check_number


@checked
def at(epochs: NonNegative, steps_per_epoch: Positive) -> Numeric:
    """The number of updates in a number of epochs, rounded to a whole number.

    `piecewise_values_schedule([at(30, 391), at(60, 391)], [0.1, 0.01, 0.001])` has its boundaries at epochs 30 and 60,
    and `warmup(at(5, 391))` warms up for five epochs. To convert a schedule that counts epochs, use `.stretch(391)`.

    Args:
      epochs: at least 0; may be a fraction.
      steps_per_epoch: the number of updates in one epoch.

    Raises:
      ValueError: for negative `epochs`, or a `steps_per_epoch` that is not positive.
    """
    check_number("at", "epochs", epochs, Range(low=0.0))
    check_number("at", "steps_per_epoch", steps_per_epoch, Range(low=0.0, low_open=True))
    if is_number(epochs) and is_number(steps_per_epoch):
        return round(epochs * steps_per_epoch)
    return jnp.round(jnp.asarray(epochs, float) * jnp.asarray(steps_per_epoch, float))
