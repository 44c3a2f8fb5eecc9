# SPDX-License-Identifier: Apache-2.0
"""Adam's relatives and the older adaptive rules, where optax has their formulas. Where not: tests/differences."""

import dataclasses

import jax

from support.parity import shared


def halving(count):
    return 0.01 / (1 + count / 10)


def matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


def loose(call):
    """optax computes 1 - b**t in float32, which is off by 6e-5 at the first steps."""
    return dataclasses.replace(call, float32=5e-5, why=loose.__doc__)


def early(call):
    """optax subtracts 1,992 from 1,999 in float32, numbers that are off by 6e-5, to get 7 and its rectification."""
    return dataclasses.replace(call, float32=1e-2, why=early.__doc__)


CALLS = [
    loose(shared("scale_by_belief")),
    loose(shared("scale_by_belief", 0.8, 0.95, 1e-3, 1e-4, nesterov=True)),
    loose(shared("adabelief", 0.01)),
    shared("adabelief", halving, 0.8, 0.95, 1e-3, 1e-4, nesterov=True),
    loose(shared("scale_by_amsgrad")),
    loose(shared("scale_by_amsgrad", 0.8, 0.9, 1e-3, 1e-4, None, True, False)),
    loose(shared("scale_by_amsgrad", bias_correction_mu=False)),
    shared("amsgrad", 0.01, bias_correction_mu=False, bias_correction_nu=False),
    shared("amsgrad", halving, 0.8, 0.9, 1e-3, 1e-4),
    shared("scale_by_adamax"),
    shared("scale_by_adamax", 0.8, 0.9, 1e-2),
    shared("adamax", halving, 0.8, 0.9, 1e-2),
    shared("adamaxw", 0.01, weight_decay=0.1),
    shared("adamaxw", halving, 0.8, 0.9, 1e-2, 0.1, mask=matrices),
    # Where b2 = 1 - b2, optax's Adan is the paper's.
    loose(shared("scale_by_adan", 0.8, 0.5, 0.9, 1e-2, 1e-2)),
    shared("adan", halving, b2=0.5, weight_decay=0.1, mask=matrices),
    # Without an initial value, optax's Yogi is the paper's with bias correction.
    loose(shared("scale_by_yogi", initial_accumulator_value=0.0)),
    loose(shared("scale_by_yogi", 0.8, 0.9, 1e-2, 1e-2, 0.0)),
    early(shared("scale_by_radam")),
    loose(shared("scale_by_radam", 0.8, 0.95, 1e-3, 1e-4, 8.0, nesterov=True)),
    early(shared("radam", 0.01)),
    loose(shared("radam", halving, 0.8, 0.9, 1e-3, 1e-4, 4.5, nesterov=True)),
    shared("radam", 0.01, b2=0.5),
    shared("scale_by_novograd"),
    shared("scale_by_novograd", 0.8, 0.9, 1e-2, 1e-2, 0.1),
    shared("novograd", halving, 0.8, 0.9, 1e-2, 1e-2, 0.1),
    shared("scale_by_adadelta"),
    shared("scale_by_adadelta", 0.8, 1e-3),
    shared("adadelta", 0.5, weight_decay=0.1),
    shared("adadelta", halving, 0.8, 1e-3, 0.1, matrices),
]
