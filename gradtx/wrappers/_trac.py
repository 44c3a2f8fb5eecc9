# SPDX-License-Identifier: Apache-2.0
"""TRAC: scales the displacement of an optimizer from its initial parameters, for tasks that change."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import transformation
from gradtx.core._ranges import Positive, is_number
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._safe import safe_divide, safe_sqrt
from gradtx.numerics._special import erfi
from gradtx.wrappers._mechanic import alike, scaled_displacement

BETAS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)


class TracState(NamedTuple):
    """The state of the base optimizer, the number of updates made, sigma and v for each decay, p_1 and D."""

    base_optimizer_state: OptState
    count: jax.Array
    sigma: jax.Array
    variance: jax.Array
    x0: Params
    delta: Updates


@transformation
def trac(
    base_optimizer: Transformation, betas: tuple[float, ...] = BETAS, eps: Positive = 1e-8, *, nonnegative: bool = False
) -> GradientTransformationExtraArgs:
    """TRAC: scales the sum D of an optimizer's updates by S, which sums one term for each decay b in `betas`:

    ```
    h = <D, g>        v = b² v + h²        sigma = b sigma - h
    S = eps / erfi(1 / sqrt(2)) * sum of all erfi(sigma / sqrt(2 v))
    p = p_1 + S D
    ```

    In h, D is the sum before the step. S is 0 at the first step and of the size of eps at the second. When the updates
    of the past have become wrong, S falls back towards 0, which takes the parameters back to p_1.

    Args:
      base_optimizer: the optimizer whose updates are summed.
      betas: the decays b, each in (0, 1], at least one.
      eps: the size of S before there is evidence.
      nonnegative: whether S is bounded below by 0, as in the authors' code, so that it never reverses D.

    Reference: Muppidi, Zhang and Yang 2024, arXiv:2405.16642, algorithms 1 and 2.
    """
    if not (isinstance(betas, tuple | list) and betas and all(is_number(b) and 0 < b <= 1 for b in betas)):
        raise ValueError(f"trac: betas must be numbers in (0, 1], at least one, got {betas!r}")

    def start():
        zeros = jnp.zeros([len(betas)], jnp.result_type(float))
        return {"sigma": zeros, "variance": jnp.copy(zeros)}

    def tune(old, totals):
        h, b = totals.displacement_g, jnp.asarray(betas, old["sigma"].dtype)
        sigma, variance = b * old["sigma"] - h, b**2 * old["variance"] + h**2
        evidence = jnp.sum(erfi(safe_divide(sigma, safe_sqrt(2 * variance))))
        scale = alike(eps) / erfi(jnp.sqrt(jnp.asarray(0.5, h.dtype)))
        factor = scale * evidence
        return jnp.maximum(factor, 0) if nonnegative else factor, {"sigma": sigma, "variance": variance}

    return scaled_displacement("trac", base_optimizer, TracState, start, tune)
