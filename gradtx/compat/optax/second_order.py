# SPDX-License-Identifier: Apache-2.0
"""Curvature: the names of `optax.second_order`."""

from gradtx.curvature import fisher_diag as fisher_diag
from gradtx.curvature import hessian_diag as hessian_diag
from gradtx.curvature import hvp as hvp
