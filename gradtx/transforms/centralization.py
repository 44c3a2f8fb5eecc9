# SPDX-License-Identifier: Apache-2.0
"""Gradient centralization."""

from typing import Literal

import jax.numpy as jnp

from gradtx.core.factory import per_parameter, transformation
from gradtx.core.transformation import GradientTransformationExtraArgs


@transformation
def centralize(*, units: Literal["first", "last"] = "first") -> GradientTransformationExtraArgs:
    """u = g - mean(g) for parameters of rank 2 and more, with a mean for each unit by itself; vectors and scalars pass.

    Args:
      units: the axis that numbers the units of a layer; the mean is over all others. "first" is Optax's and the layout
        (outputs, inputs) of the paper's code; the kernels of flax, (inputs, outputs), have it "last".

    Reference: Yong et al. 2020, arXiv:2004.01461.
    """

    def update(g, slots, p, t):
        if g.ndim < 2 or g.size == 0:
            return g, slots
        axes = tuple(range(1, g.ndim)) if units == "first" else tuple(range(g.ndim - 1))
        return g - jnp.mean(g, axis=axes, keepdims=True), slots

    return per_parameter(None, update)
