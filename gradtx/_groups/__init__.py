# SPDX-License-Identifier: Apache-2.0
"""Groups: parameters with hyperparameters of their own."""
