# SPDX-License-Identifier: Apache-2.0
"""Optimizers: one algorithm a file, with its state, its `scale_by_x` and its recipe `x`."""
