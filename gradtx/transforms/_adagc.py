# SPDX-License-Identifier: Apache-2.0
"""AdaGC: clipping of each tensor to a moving average of its own norms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, NonNegativeInt, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates
from gradtx.numerics._averages import ema
from gradtx.numerics._ratios import l2_norm
from gradtx.numerics._safe import safe_divide, safe_sqrt, shrink_factor
from gradtx.transforms._adaptive_clipping import shrunk


class AdaGCState(NamedTuple):
    """The number of updates made, the average norm of each tensor (0 before its first), and the last metrics."""

    count: jax.Array
    gamma: Updates
    norm: jax.Array
    clip_factor: jax.Array
    clipped_fraction: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """The global norm before clipping, the factor by which clipping changed it, the fraction of tensors clipped."""
        return {
            "grad_norm": self.norm,
            "clip_factor": self.clip_factor,
            "clipped_fraction": self.clipped_fraction,
        }


@transformation
def adagc(
    lambda_rel: Positive = 1.05,
    decay: Decay = 0.98,
    warmup_steps: NonNegativeInt = 100,
    lambda_abs: Positive = 1.0,
) -> GradientTransformationExtraArgs:
    """AdaGC: clips the gradient of each tensor relative to a moving average of its norms after clipping:

    ```
    h = min(1, lambda_rel gamma / ‖g‖)          u = h g          gamma = decay gamma + (1 - decay) ‖u‖
    ```

    During the warm-up all tensors share h = min(1, lambda_abs / ‖all gradients‖), and gamma is the smallest ‖u‖ of the
    tensor so far. Norms of 0 are ignored, since with gamma = 0 the tensor could never move again; a tensor without any
    other norm yet is clipped as in the warm-up. An infinite norm gives u = 0, NaN passes; neither enters gamma.

    Args:
      lambda_rel: the largest ratio of a norm to its average; the paper's 1.05 lets norms exceed it by 5 %.
      warmup_steps: the number of updates in the warm-up.
      lambda_abs: the largest global norm during the warm-up.

    Reference: Wang et al. 2025, arXiv:2502.11034, algorithm 1.
    """

    def is_local(gamma, t):
        return (t > warmup_steps) & (gamma > 0)

    def measure(g, gamma, p, t, memory):
        norm, local = l2_norm(g), is_local(gamma, t)
        after = jnp.minimum(norm, lambda_rel * gamma)
        over = local & (norm > lambda_rel * gamma)
        # For tensors with their own threshold: ‖u‖² and whether they are clipped; for the others: ‖g‖² and their count.
        one = jnp.ones_like(norm)
        mine = jnp.where(local, after**2, 0), jnp.where(over, one, 0)
        others = jnp.where(local, 0, norm**2), jnp.where(local, 0, one)
        return reductions.once((norm**2, one, mine, others))

    def shared(t, total, memory):
        squares, number, (after, over), (other_squares, others) = total
        norm = safe_sqrt(squares)
        factor = shrink_factor(norm, lambda_abs)
        new_norm = safe_sqrt(after + shrunk(other_squares, factor**2))
        clipped = (over + jnp.where(norm > lambda_abs, others, 0)) / number
        seen = {"norm": norm, "clip_factor": safe_divide(new_norm, norm), "clipped_fraction": clipped}
        return (factor, norm), seen

    def update(g, gamma, p, t, common):
        factor, global_norm = common
        norm, local = l2_norm(g), is_local(gamma, t)
        h = jnp.where(local, shrink_factor(norm, lambda_rel * gamma), factor)
        after = h * norm
        least = jnp.where(gamma > 0, jnp.minimum(gamma, after), after)
        new = jnp.where(local, ema(gamma, after, decay), least)
        counts = jnp.isfinite(jnp.where(local, norm, global_norm)) & (after > 0)
        return shrunk(g, h), jnp.where(counts, new, gamma)

    return per_parameter(
        lambda p: jnp.zeros([], jnp.real(p).dtype),
        update,
        AdaGCState,
        measure=measure,
        shared=shared,
        memory=lambda: {"norm": 0.0, "clip_factor": 1.0, "clipped_fraction": 0.0},
    )
