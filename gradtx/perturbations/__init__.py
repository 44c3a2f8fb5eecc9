# SPDX-License-Identifier: Apache-2.0
"""Perturbations: random noise on the inputs of a piecewise constant function gives it useful derivatives."""

from gradtx.perturbations._perturbed import Gumbel as Gumbel
from gradtx.perturbations._perturbed import Normal as Normal
from gradtx.perturbations._perturbed import make_perturbed_fun as make_perturbed_fun
