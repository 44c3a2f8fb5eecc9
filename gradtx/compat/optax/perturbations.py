# SPDX-License-Identifier: Apache-2.0
"""Perturbed functions: the names of `optax.perturbations`."""

from gradtx.perturbations import Gumbel as Gumbel
from gradtx.perturbations import Normal as Normal
from gradtx.perturbations import make_perturbed_fun as make_perturbed_fun
