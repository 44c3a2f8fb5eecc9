# SPDX-License-Identifier: Apache-2.0
"""Normalization by the norm of all updates together."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._operations import sum_of
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt


class NormalizeState(NamedTuple):
    """The state of a stage that remembers nothing."""


@transformation
def normalize() -> GradientTransformationExtraArgs:
    """u = g / ‖g‖, with the norm over all gradients together; u = 0 if all gradients are 0."""

    def measure(g, slots, p, t):
        return sum_of(abs_sq(g))

    def shared(t, total):
        squares, scale = total
        return 1 / scale, safe_divide(jnp.ones_like(squares), safe_sqrt(squares))

    def update(g, slots, p, t, factors):
        first, second = factors  # their product would overflow for the smallest norms
        return g * first * second, slots

    return per_parameter(None, update, NormalizeState, measure=measure, shared=shared, rescales=True)
