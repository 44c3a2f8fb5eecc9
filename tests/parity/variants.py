# SPDX-License-Identifier: Apache-2.0
"""ADOPT, AdEMAMix and its simplification, GaLore."""

import dataclasses

from parity.first_rules import halving, loose, matrices
from support.parity import Shared, shared


def contrib(name, *args, **kwargs):
    return dataclasses.replace(shared(name, *args, **kwargs), at=f"contrib.{name}")


def early(call):
    """optax takes b2 through float32, where 1 - 0.9999 is off by 2e-4 of itself; more where steps cancel."""
    return dataclasses.replace(call, float32=2e-3, why=early.__doc__)


def single(call, reason):
    """Also in 64 bits."""
    return dataclasses.replace(loose(call), float64=2e-5, why=reason)


SVD = "optax takes the singular vectors in float32"
SCHEDULE = "the values of the schedules are float32, and optax subtracts them from 1 there"


def limit(t):
    return 0.5 + 0.1 * t


CALLS: list[Shared] = [
    early(contrib("scale_by_adopt")),
    contrib("scale_by_adopt", 0.8, 0.9, 0.3, nesterov=True),
    early(contrib("scale_by_adopt", use_clipping=False)),
    early(contrib("scale_by_adopt", clip_value_fn=limit)),
    early(contrib("adopt", halving)),
    loose(contrib("scale_by_ademamix")),
    single(contrib("scale_by_ademamix", 0.8, 0.99, halving, halving, 1e-3, 1e-3), SCHEDULE),
    loose(contrib("ademamix", halving)),
    loose(contrib("ademamix", 0.01, 0.8, 0.95, 0.99, 4.0, weight_decay=0.1, mask=matrices)),
    loose(contrib("scale_by_simplified_ademamix")),
    loose(contrib("scale_by_simplified_ademamix", 0.9, 0.99, 2.0, 1e-3, 1e-3)),
    loose(contrib("simplified_ademamix", halving, weight_decay=0.1, mask=matrices)),
    single(contrib("scale_by_galore", 2, 7), SVD),
    single(contrib("scale_by_galore"), SVD),
    single(contrib("galore", halving, 2, 5, 0.25, weight_decay=0.1, mask=matrices), SVD),
]
