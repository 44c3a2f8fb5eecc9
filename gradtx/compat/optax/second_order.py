# SPDX-License-Identifier: Apache-2.0
"""Curvature: the names of `optax.second_order`."""

from gradtx.compat._second_order import fisher_diag as fisher_diag
from gradtx.compat._second_order import hessian_diag as hessian_diag
from gradtx.compat._second_order import hvp as hvp
