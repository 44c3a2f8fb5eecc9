# SPDX-License-Identifier: Apache-2.0
"""Unit-wise clipping, centralization, constraints, sums of updates."""

from support.parity import shared

CALLS = [
    shared("adaptive_grad_clip", 0.1),
    shared("adaptive_grad_clip", 0.01, 0.5),
    shared("adaptive_grad_clip", 0.1, axis=()),
    shared("centralize"),
    shared("zero_nans"),
    shared("keep_params_nonnegative"),
    shared("apply_every"),
    shared("apply_every", 4),
    shared("set_to_zero"),
]
