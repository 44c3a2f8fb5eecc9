# SPDX-License-Identifier: Apache-2.0
"""Adding updates up and letting their sum pass now and then."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates
from gradtx.numerics._averages import zeros_like


class ApplyEvery(NamedTuple):
    """The updates made since the sum was let through, modulo k, and the sum of those of this cycle."""

    count: jax.Array
    grad_acc: Updates


@transformation
def apply_every(k: PositiveInt = 1) -> GradientTransformationExtraArgs:
    """u = the sum of the last k updates at every k-th step, 0 at all others.

    The last stage of a chain: what is before it runs at every step, so this is not the same as a larger batch. An
    update that is not finite spoils the sum of its own cycle only.
    """

    def shared(t, total, memory):
        place = memory["count"]
        return (place == 0, place == k - 1), {"count": (place + 1) % k}

    def update(g, acc, p, t, common):
        first, last = common
        acc = jnp.where(first, g, acc + g)
        return jnp.where(last, acc, jnp.zeros([], acc.dtype)), acc

    return per_parameter(
        zeros_like,
        update,
        ApplyEvery,
        shared=shared,
        memory=lambda: {"count": jnp.zeros([], jnp.int32)},
        counter="step",  # the count is the place in the cycle, not the step
    )
