# SPDX-License-Identifier: Apache-2.0
"""Replacing elements of updates: NaNs, elements that would make a parameter negative, or all of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import _over_devices as reductions
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates


class ZeroNansState(NamedTuple):
    """Whether the last gradient of each parameter had a NaN."""

    found_nan: Updates

    def metrics(self) -> dict[str, jax.Array]:
        found = jax.tree.leaves(self.found_nan)
        return {"found_nan": jnp.any(jnp.stack(found)) if found else jnp.zeros([], bool)}


class NonNegativeParamsState(NamedTuple):
    """The state of a stage that remembers nothing."""


@transformation
def zero_nans() -> GradientTransformationExtraArgs:
    """u = 0 where g is NaN, g elsewhere; infinities pass. The state and `metrics` tell whether there was a NaN."""

    def update(g, found, p, t):
        is_nan = jnp.isnan(g)
        return jnp.where(is_nan, jnp.zeros([], g.dtype), g), reductions.anywhere(is_nan)

    return per_parameter(lambda p: jnp.zeros([], bool), update, ZeroNansState)


@transformation
def keep_params_nonnegative() -> GradientTransformationExtraArgs:
    """u = -p where p + g < 0, g elsewhere: a parameter that would become negative becomes 0.

    Put it last in a chain, for parameters that start nonnegative.

    Raises:
      ValueError: for complex parameters.
    """

    def update(g, slots, p, t):
        if jnp.iscomplexobj(g) or jnp.iscomplexobj(p):
            raise ValueError("complex parameters are neither negative nor positive")
        return jnp.where(p + g < 0, -p, g), slots

    return per_parameter(None, update, NonNegativeParamsState, needs_params=True)


@transformation
def set_to_zero() -> GradientTransformationExtraArgs:
    """u = 0, whatever the gradient: leaves parameters unchanged, for instance inside `masked` or `partition`."""
    return per_parameter(None, lambda g, slots, p, t: (jnp.zeros_like(g), slots))
