# SPDX-License-Identifier: Apache-2.0
"""Scaling by norms: of a parameter, of its update, of both, or of all updates together."""

import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._operations import maximum, multiply, sum_of
from gradtx.core._ranges import NonNegative, Real
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.numerics._ratios import at_least, l2_norm, l2_norms, trust_ratio
from gradtx.numerics._safe import abs_sq, norm_of, root_mean_square, safe_divide


@transformation
def scale_by_trust_ratio(
    min_norm: NonNegative = 0.0, trust_coefficient: NonNegative = 1.0, eps: NonNegative = 0.0
) -> GradientTransformationExtraArgs:
    """u = g * trust_coefficient ‖p‖ / (‖g‖ + eps), for each parameter separately; u = g where one of the norms is 0.

    Args:
      min_norm: a lower bound of both norms.
      trust_coefficient: the factor of the ratio; 1 in LAMB, about 0.001 in LARS.

    Reference: You et al. 2019, arXiv:1904.00962, algorithm 2.
    """

    def update(g, slots, p, t):
        of_p, of_g = [at_least(size, min_norm) for size in l2_norms(p, g)]
        return multiply(g, trust_ratio(of_p, of_g, trust_coefficient, eps)), slots

    return per_parameter(None, update, needs_params=True)


@transformation
def scale_by_param_block_norm(min_scale: NonNegative = 1e-3) -> GradientTransformationExtraArgs:
    """u = g max(‖p‖, min_scale), with the norm of each parameter separately.

    Args:
      min_scale: the smallest factor, so that parameters that start at zero can move.
    """
    return per_parameter(None, lambda g, slots, p, t: (multiply(g, l2_norm(p, min_scale)), slots), needs_params=True)


@transformation
def scale_by_param_block_rms(min_scale: NonNegative = 1e-3) -> GradientTransformationExtraArgs:
    """u = g max(RMS(p), min_scale), with the root mean square of each parameter separately.

    Args:
      min_scale: the smallest factor, so that parameters that start at zero can move.

    Reference: Shazeer and Stern 2018, arXiv:1804.04235, section 8.
    """

    def update(g, slots, p, t):
        return multiply(g, maximum(root_mean_square(p, min_scale), min_scale)), slots

    return per_parameter(None, update, needs_params=True)


@transformation
def scale_by_param_magnitude(offset: NonNegative = 0.01) -> GradientTransformationExtraArgs:
    """u = g (|p| + offset), element by element: steps that do not depend on the scale of a parameter.

    Placed both before and after `normalize`, it gives the ascent of ASAM; see `sam`.

    Args:
      offset: the factor for elements of p that are 0, so that they can move.

    Reference: Kwon et al. 2021, arXiv:2102.11600 (the operator T, with `offset` for eta).
    """
    return per_parameter(None, lambda g, slots, p, t: (g * (jnp.abs(p) + offset), slots), needs_params=True)


@transformation
def normalize_by_update_norm(scale_factor: Real = 1.0, eps: NonNegative = 1e-6) -> GradientTransformationExtraArgs:
    """u = scale_factor * g / (‖g‖ + eps), with the norm over all gradients together; u = 0 if all gradients are 0.

    Args:
      scale_factor: the norm of all updates together, if `eps` is small; a negative one turns the sign.
    """

    def measure(g, slots, p, t):
        return sum_of(abs_sq(g))

    def shared(t, total):
        return safe_divide(scale_factor, norm_of(total) + eps)

    def update(g, slots, p, t, factor):
        return factor * g, slots

    return per_parameter(None, update, measure=measure, shared=shared, rescales=True)
