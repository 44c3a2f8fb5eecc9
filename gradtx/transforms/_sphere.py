# SPDX-License-Identifier: Apache-2.0
"""Keeping parameters on a sphere."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates
from gradtx.numerics._ratios import l2_norm, trust_ratio


class KeepNormState(NamedTuple):
    """The norm of each parameter at the start."""

    norm: Updates


@transformation
def keep_norm(norm: Positive | None = None) -> GradientTransformationExtraArgs:
    """Moves each parameter along the sphere of radius `norm`: u = norm (p + g) / ‖p + g‖ - p.

    Put it last in a chain, after the learning rate: g is the whole step, and p + u has the norm. To keep the norms of
    some parameters only, wrap it in `masked`.

    Args:
      norm: the radius of all spheres; None for the norm that each parameter has in `init`. A parameter that is 0 then
        is not constrained.

    Reference: Wen et al. 2026, arXiv:2606.16899.
    """

    def update(g, start, p, t):
        new = p + g
        return trust_ratio(jnp.asarray(start if norm is None else norm), l2_norm(new)) * new - p, start

    if norm is not None:
        return per_parameter(None, update, needs_params=True)
    return per_parameter(l2_norm, update, KeepNormState, needs_params=True)
