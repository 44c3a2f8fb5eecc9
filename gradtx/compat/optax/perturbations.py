# SPDX-License-Identifier: Apache-2.0
"""Perturbed functions: the names of `optax.perturbations`."""

from gradtx.perturbations._perturbed import Gumbel as Gumbel
from gradtx.perturbations._perturbed import Normal as Normal
from gradtx.perturbations._perturbed import make_perturbed_fun as make_perturbed_fun
