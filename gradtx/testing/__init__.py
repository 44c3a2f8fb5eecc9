# SPDX-License-Identifier: Apache-2.0
"""Checks of transformations, gradtx's or your own, to be used in tests, and of values in a compiled step."""

from gradtx.testing._contract import check_contract as check_contract
from gradtx.testing._example_arguments import example_arguments as example_arguments
from gradtx.testing._values_in_range import check_hyperparameters as check_hyperparameters
