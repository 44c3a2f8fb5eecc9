# SPDX-License-Identifier: Apache-2.0
"""Curvature: products with the Hessian and Gauss-Newton matrices, diagonals and eigenvalues, without the matrices."""

from gradtx.curvature._curvature import gauss_newton_vector_product as gauss_newton_vector_product
from gradtx.curvature._curvature import hessian_diagonal as hessian_diagonal
from gradtx.curvature._curvature import hessian_spectrum as hessian_spectrum
from gradtx.curvature._curvature import hessian_vector_product as hessian_vector_product
from gradtx.curvature._curvature import hutchinson_diagonal as hutchinson_diagonal
from gradtx.curvature._curvature import top_eigenvalue as top_eigenvalue
from gradtx.transforms._hessian_diagonal import gauss_newton_bartlett as gauss_newton_bartlett
from gradtx.transforms._hessian_diagonal import hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian
