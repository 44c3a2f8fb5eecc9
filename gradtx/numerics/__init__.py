# SPDX-License-Identifier: Apache-2.0
"""Numerics on single arrays: reductions for rules, linear algebra, safe norms, distributions and counters."""

from gradtx.core._counts import safe_increment as safe_increment
from gradtx.core._over_devices import largest as largest
from gradtx.core._over_devices import mean as mean
from gradtx.core._over_devices import size as size
from gradtx.core._over_devices import total as total
from gradtx.numerics._distributions import MultiNormal as MultiNormal
from gradtx.numerics._distributions import multi_normal as multi_normal
from gradtx.numerics._lanczos import lanczos as lanczos
from gradtx.numerics._linear_algebra import matrix_inverse_pth_root as matrix_inverse_pth_root
from gradtx.numerics._linear_algebra import matrix_inverse_pth_root_eigh as matrix_inverse_pth_root_eigh
from gradtx.numerics._linear_algebra import nnls as nnls
from gradtx.numerics._linear_algebra import power_iteration as power_iteration
from gradtx.numerics._newton_schulz import distance_from_orthogonal as distance_from_orthogonal
from gradtx.numerics._safe_norms import safe_norm as safe_norm
from gradtx.numerics._safe_norms import safe_root_mean_squares as safe_root_mean_squares
from gradtx.numerics._units import unitwise_clip as unitwise_clip
from gradtx.numerics._units import unitwise_norm as unitwise_norm
