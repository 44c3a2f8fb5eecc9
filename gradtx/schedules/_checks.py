# SPDX-License-Identifier: Apache-2.0
"""Checks of lists among the arguments of schedules; single numbers are checked through their annotations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.core import Tracer

from gradtx.core._ranges import Range, is_array, is_number


def known(*values: Any) -> bool:
    """Whether the values can be compared now: whether none of them is traced."""
    return not any(isinstance(x, Tracer) for x in values)


def check_list(where: str, name: str, values: Any) -> tuple:
    """The elements of a list, a tuple or an array with an axis."""
    if not isinstance(values, list | tuple) and not (is_array(values) and np.ndim(values) == 1):
        raise TypeError(f"{where}: {name} must be a list or a tuple, got {values!r} ({type(values).__name__})")
    return tuple(values)


def check_number(where: str, name: str, value: Any, spec: Range) -> None:
    """Raises an error for anything but a number in the range."""
    if not (is_number(value) or is_array(value)):
        raise TypeError(f"{where}: {name} must be {spec}, got {value!r} ({type(value).__name__})")
    if known(value) and not spec.holds(value):
        raise ValueError(f"{where}: {name} must be {spec}, got {value}")


def check_boundaries(where: str, boundaries: Any, strictly: bool = True) -> tuple:
    """The boundaries as a tuple; an error unless they are numbers that increase (not `strictly`: do not decrease)."""
    boundaries = check_list(where, "boundaries", boundaries)
    for i, boundary in enumerate(boundaries):
        check_number(where, f"boundaries[{i}]", boundary, Range())
    for low, high in zip(boundaries, boundaries[1:], strict=False):
        if known(low, high) and (high <= low if strictly else high < low):
            rule = "be strictly increasing" if strictly else "not decrease"
            raise ValueError(f"{where}: boundaries must {rule}, got {low} before {high}")
    return boundaries


def check_scales(where: str, boundaries_and_scales: Any, first: float = 0.0) -> tuple[tuple, tuple]:
    """The boundaries in increasing order, none below `first`, and their scales in the same order."""
    if boundaries_and_scales is None:
        return (), ()
    if not isinstance(boundaries_and_scales, Mapping):
        raise TypeError(
            f"{where}: boundaries_and_scales must be a dict from steps to scales, got {boundaries_and_scales!r}"
        )
    for boundary, scale in boundaries_and_scales.items():
        check_number(where, "a key of boundaries_and_scales", boundary, Range(low=first))
        check_number(where, f"boundaries_and_scales[{boundary!r}]", scale, Range(low=0.0))
    pairs = sorted(boundaries_and_scales.items(), key=lambda pair: pair[0])
    return tuple(b for b, _ in pairs), tuple(s for _, s in pairs)
