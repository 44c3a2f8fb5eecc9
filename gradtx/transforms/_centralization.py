# SPDX-License-Identifier: Apache-2.0
"""Gradient centralization."""

from typing import Literal

from gradtx.core import _over_devices as reductions
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._transformation import GradientTransformationExtraArgs


@transformation
def centralize(*, units: Literal["first", "last"] = "first") -> GradientTransformationExtraArgs:
    """u = g - mean(g) for parameters of rank at least 2, with one mean for each unit; vectors and scalars pass.

    Args:
      units: the axis that numbers the units of a layer; the mean is over all other axes. "first" is Optax's choice and
        fits the layout (outputs, inputs) of the paper's code; "last" fits flax's kernels, (inputs, outputs). Where a
        role names the output axes, those are used instead.

    Reference: Yong et al. 2020, arXiv:2004.01461.
    """

    def update(g, slots, p, t, role):
        if g.ndim < 2 or g.size == 0:
            return g, slots
        numbers = role.out_axes if role is not None and role.out_axes else (0 if units == "first" else g.ndim - 1,)
        axes = tuple(axis for axis in range(g.ndim) if axis not in numbers)
        return g - reductions.mean(g, axis=axes, keepdims=True), slots

    return per_parameter(None, update, uses_role=True)
