# SPDX-License-Identifier: Apache-2.0
"""Clipping: by value, by the norm of each parameter's gradient, by the norm of all gradients together."""

import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._operations import multiply, sum_of
from gradtx.core._ranges import LimitOrZero
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.numerics._safe import abs_sq, euclidean_norm, norm_of, root_mean_square, shrink_factor


@transformation
def clip(max_delta: LimitOrZero) -> GradientTransformationExtraArgs:
    """u = min(max(g, -max_delta), max_delta), element by element.

    Args:
      max_delta: the largest magnitude of an element.
    """
    return per_parameter(None, lambda g, slots, p, t: (jnp.clip(g, -max_delta, max_delta), slots))


@transformation
def clip_by_norm(max_norm: LimitOrZero) -> GradientTransformationExtraArgs:
    """u = g min(1, max_norm / ‖g‖), with the norm of each parameter's gradient separately.

    Args:
      max_norm: the largest norm of one parameter's gradient.
    """

    def update(g, slots, p, t):
        return multiply(g, shrink_factor(euclidean_norm(g, least=max_norm), max_norm)), slots

    return per_parameter(None, update)


@transformation
def clip_by_block_rms(threshold: LimitOrZero) -> GradientTransformationExtraArgs:
    """u = g min(1, threshold / RMS(g)), with the root mean square of each parameter's gradient separately.

    Args:
      threshold: the largest root mean square of one parameter's gradient.

    Reference: Shazeer and Stern 2018, arXiv:1804.04235, section 6.
    """
    return per_parameter(
        None, lambda g, slots, p, t: (multiply(g, shrink_factor(root_mean_square(g, threshold), threshold)), slots)
    )


@transformation
def clip_by_global_norm(max_norm: LimitOrZero) -> GradientTransformationExtraArgs:
    """u = g min(1, max_norm / ‖g‖), with the norm over all gradients together.

    The norm is computed in at least float32, the factor once a step.

    Args:
      max_norm: the largest norm of all gradients together.

    Reference: Pascanu et al. 2012, arXiv:1211.5063.
    """

    def measure(g, slots, p, t):
        return sum_of(abs_sq(g))

    def shared(t, total):
        return shrink_factor(norm_of(total), max_norm)

    def update(g, slots, p, t, factor):
        return multiply(g, factor), slots

    return per_parameter(None, update, measure=measure, shared=shared, rescales=True)
