# SPDX-License-Identifier: Apache-2.0
"""Adding up updates and passing on their sum every k steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates
from gradtx.numerics._averages import zeros_like


class ApplyEvery(NamedTuple):
    """The number of updates in this cycle (0 after the k-th), and their sum."""

    count: jax.Array
    grad_acc: Updates


@transformation
def apply_every(k: PositiveInt = 1) -> GradientTransformationExtraArgs:
    """u = the sum of the last k updates at every k-th step, 0 at all others.

    Put it last in a chain. The stages before it run at every step, so the result differs from that of a larger batch.
    A non-finite update spoils the sum of its own cycle only.

    Args:
      k: the number of steps in a cycle; 1 passes every update.

    See also `MultiSteps`, which averages gradients before the optimizer.
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
        counter="step",  # the field `count` is the place in the cycle, not the step
    )
