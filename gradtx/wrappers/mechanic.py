# SPDX-License-Identifier: Apache-2.0
"""Mechanic: learns the factor of an optimizer's learning rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.factory import transformation
from gradtx.core.ranges import NonNegative, Positive, PositiveInt
from gradtx.core.transformation import GradientTransformationExtraArgs
from gradtx.core.types import OptState, Params
from gradtx.numerics.safe import safe_sqrt
from gradtx.wrappers.displacement import alike, scaled_displacement


class MechanicState(NamedTuple):
    """The state of the base optimizer, the number of updates made, four numbers for each decay, p_1."""

    base_optimizer_state: OptState
    count: jax.Array
    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array
    x0: Params


@transformation
def mechanize(
    base_optimizer: Any,
    weight_decay: NonNegative = 1e-2,
    eps: Positive = 1e-8,
    s_init: Positive = 1e-6,
    num_betas: PositiveInt = 6,
) -> GradientTransformationExtraArgs:
    """Mechanic: scales the sum D of the updates of an optimizer, for each decay b = 0.9, 0.99, 0.999, ... with

    ```
    h = -<D, g + weight_decay S (‖g‖ / ‖p‖) p>        r = b r + s min(max(h, -m), m)
    m = max(b m, |h| + eps)                           v = b² v + h²
    s = (s_init m / num_betas + max(r, 0)) / (sqrt(v) + eps)        S = sum of all s
    p = p_1 + S D
    ```

    D in h is the sum before the step; it is not stored but (p - p_1) / S, so parameters in float32 at least.

    Args:
      base_optimizer: with a learning rate of 1, or a schedule up to 1.
      weight_decay: holds S back; it is not that of the base optimizer.

    Reference: Cutkosky, Defazio and Mehta 2023, arXiv:2306.00144, algorithm 1, and their code.
    """

    def start():
        zeros = jnp.zeros([num_betas], jnp.result_type(float))
        return {"r": zeros, "m": jnp.copy(zeros), "v": jnp.copy(zeros), "s": jnp.full_like(zeros, s_init)}

    def tune(old, totals):
        r, m, v, s = (old[n] for n in "rmvs")
        b = jnp.asarray([1 - 0.1 ** (k + 1) for k in range(num_betas)], s.dtype)
        pull = alike(weight_decay) * jnp.sum(s) * safe_sqrt(totals.g_g) / (safe_sqrt(totals.p_p) + alike(eps))
        h = -(totals.displacement_g + pull * totals.displacement_p)
        r = b * r + s * jnp.clip(h, -m, m)
        m = jnp.maximum(b * m, jnp.abs(h) + alike(eps))
        v = b**2 * v + h**2
        s = (alike(s_init) / num_betas * m + jnp.maximum(r, 0)) / (safe_sqrt(v) + alike(eps))
        return jnp.sum(s), {"r": r, "m": m, "v": v, "s": s}

    return scaled_displacement(
        "mechanize", base_optimizer, MechanicState, start, tune, lambda old: jnp.sum(old["s"]) + alike(eps)
    )
