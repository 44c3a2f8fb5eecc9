# SPDX-License-Identifier: Apache-2.0
"""Values joined by lines or half cosines, and one-cycle schedules."""

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._ranges import Fraction, Positive, Real, is_number
from gradtx.core._types import Numeric, ScheduleFn
from gradtx.schedules._checks import check_scales, known
from gradtx.schedules._curves import cosine, linear, lookup
from gradtx.schedules._schedule import Lasting, composition
from gradtx.schedules._steps import between, in_floats, reached, since

_CURVES = {"linear": linear, "cosine": cosine}


def _interpolated(count: jax.Array, curve: Callable, boundaries: Sequence, values: Sequence) -> jax.Array:
    """From values[i] to values[i+1] between boundaries[i] and boundaries[i+1], then the last value."""
    pieces = zip(itertools.pairwise(boundaries), itertools.pairwise(values), strict=True)
    result = lookup(count, (), values[:1])
    for (begin, end), (low, high) in pieces:
        piece = curve(since(count, begin), low, high, between(begin, end))
        result = jnp.where(reached(count, begin), piece, result)
    return result


@composition
def piecewise_interpolate_schedule(
    interpolate_type: Literal["linear", "cosine"],
    init_value: Real,
    boundaries_and_scales: Mapping[Numeric, Numeric] | None = None,
) -> ScheduleFn:
    """The values of `piecewise_constant_schedule` at the boundaries, with lines or half cosines between them.

    ```
    v[i] = init_value * scales[0] * ... * scales[i-1] at boundary i, where boundary 0 is step 0
    v[i] + (v[i+1] - v[i]) * w between, with w = x or (1 - cos(pi x)) / 2 for the fraction x of the way
    ```

    Args:
      interpolate_type: "linear" for lines, "cosine" for half cosines.
      boundaries_and_scales: a dictionary from steps to scales, the factors by which the value changes until that step;
        None for a constant.

    Raises:
      ValueError: for a negative boundary or scale.
    """
    boundaries, scales = check_scales("piecewise_interpolate_schedule", boundaries_and_scales)

    def at(count):
        levels = itertools.accumulate(in_floats(count, init_value, *scales), operator.mul)
        return _interpolated(count, _CURVES[interpolate_type], (0, *boundaries), tuple(levels))

    return Lasting(at, boundaries[-1]) if boundaries else at


@composition
def linear_onecycle_schedule(
    transition_steps: Positive,
    peak_value: Real,
    pct_start: Fraction = 0.3,
    pct_final: Fraction = 0.85,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> ScheduleFn:
    """One cycle of three lines: up to the peak, down to the first value, and down to almost 0.

    ```
    peak_value / div_factor at step 0, peak_value at floor(pct_start * transition_steps),
    peak_value / div_factor at floor(pct_final * transition_steps),
    peak_value / (div_factor * final_div_factor) from transition_steps on
    ```

    Args:
      transition_steps: the number of updates in the cycle.
      peak_value: the largest value.
      pct_start, pct_final: the fractions of the cycle at which the first and the second line end.
      div_factor: the peak divided by the first value.
      final_div_factor: the first value divided by the last one.

    Raises:
      ValueError: for `pct_final` < `pct_start`.

    Reference: Smith and Topin, arXiv 1708.07120
    """
    if known(pct_start, pct_final) and np.any(np.asarray(pct_final) < np.asarray(pct_start)):
        raise ValueError(
            f"linear_onecycle_schedule: pct_final must be at least pct_start = {pct_start}, got {pct_final}"
        )

    def at(count):
        numbers = transition_steps, peak_value, pct_start, pct_final, div_factor, final_div_factor
        steps, peak, up, down, div, final_div = in_floats(count, *numbers)
        boundaries = 0, _whole(up * steps), _whole(down * steps), transition_steps
        return _interpolated(count, linear, boundaries, (peak / div, peak, peak / div, peak / (div * final_div)))

    return Lasting(at, transition_steps)


@composition
def cosine_onecycle_schedule(
    transition_steps: Positive,
    peak_value: Real,
    pct_start: Fraction = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> ScheduleFn:
    """One cycle of two half cosines: up to the peak and down to almost 0.

    ```
    peak_value / div_factor at step 0, peak_value at floor(pct_start * transition_steps),
    peak_value / (div_factor * final_div_factor) from transition_steps on
    ```

    Args:
      transition_steps: the number of updates in the cycle.
      peak_value: the largest value.
      pct_start: the fraction of the cycle at which the peak is reached.
      div_factor: the peak divided by the first value.
      final_div_factor: the first value divided by the last one.

    Reference: Smith and Topin, arXiv 1708.07120
    """

    def at(count):
        numbers = transition_steps, peak_value, pct_start, div_factor, final_div_factor
        steps, peak, up, div, final_div = in_floats(count, *numbers)
        boundaries = 0, _whole(up * steps), transition_steps
        return _interpolated(count, cosine, boundaries, (peak / div, peak, peak / (div * final_div)))

    return Lasting(at, transition_steps)


def _whole(x: Any) -> Any:
    """The number, rounded down."""
    return float(math.floor(x)) if is_number(x) else jnp.floor(x)
