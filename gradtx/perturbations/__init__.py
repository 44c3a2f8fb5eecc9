# SPDX-License-Identifier: Apache-2.0
"""Perturbations: derivatives of functions that are piecewise constant, by random noise on their inputs."""

from gradtx.perturbations._perturbed import Gumbel as Gumbel
from gradtx.perturbations._perturbed import Normal as Normal
from gradtx.perturbations._perturbed import make_perturbed_fun as make_perturbed_fun
