# SPDX-License-Identifier: Apache-2.0
"""Checks of transformations, gradtx's or your own, to be used in tests."""

from gradtx.testing._contract import check_contract as check_contract
from gradtx.testing._example_arguments import example_arguments as example_arguments
