# SPDX-License-Identifier: Apache-2.0
"""Assignment: rows paired with columns at the least total cost."""

from gradtx.assignment._hungarian import base_hungarian_algorithm as base_hungarian_algorithm
from gradtx.assignment._hungarian import hungarian_algorithm as hungarian_algorithm
