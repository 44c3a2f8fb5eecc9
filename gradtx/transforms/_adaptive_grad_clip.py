# SPDX-License-Identifier: Apache-2.0
"""Clipping of each unit's gradient in proportion to the norm of the unit's parameters."""

from typing import Any

from gradtx.core import _over_devices as reductions
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._operations import maximum, multiply
from gradtx.core._ranges import NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.numerics._ratios import l2_norms
from gradtx.numerics._units import clip_factor, unitwise_axes


@transformation
def adaptive_grad_clip(
    clipping: NonNegative, eps: NonNegative = 1e-3, axis: int | tuple[int, ...] | None = None
) -> GradientTransformationExtraArgs:
    """u = g min(1, clipping max(‖p‖, eps) / ‖g‖), with norms taken for each unit separately.

    Args:
      clipping: the largest ratio of the norm of a unit's gradient to the norm of its parameters.
      eps: a lower bound of the parameters' norm, so that units that start at zero can move.
      axis: the axes over which norms are taken; None for the input axes if a role names them, otherwise the axes that
        `unitwise_norm` chooses.

    Raises:
      ValueError: for an axis that a parameter does not have.

    Reference: Brock et al. 2021, arXiv:2102.06171, section 4.
    """
    if axis is not None and not all(_is_axis(a) for a in (axis if isinstance(axis, tuple) else (axis,))):
        raise TypeError(f"adaptive_grad_clip: axis must be a whole number, a tuple of them or None, got {axis!r}")

    def update(g, slots, p, t, role):
        over = role.in_axes if axis is None and role is not None and role.in_axes else axis
        p_norm, g_norm = l2_norms(p, g, unitwise_axes(reductions.whole_shape(g), over))
        return multiply(g, clip_factor(g_norm, multiply(clipping, maximum(p_norm, eps)))), slots

    return per_parameter(None, update, needs_params=True, uses_role=True)


def _is_axis(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)
