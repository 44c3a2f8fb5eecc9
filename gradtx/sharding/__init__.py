# SPDX-License-Identifier: Apache-2.0
"""Parameters that are split between devices."""

from gradtx.sharding._over_axes import over_axes as over_axes
