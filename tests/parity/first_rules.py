# SPDX-License-Identifier: Apache-2.0
"""Descent, momentum, AdaGrad, RMSProp, Adam, clipping, decay."""

import dataclasses

import jax

from support.parity import Shared, shared


def halving(count):
    return 0.01 / (1 + count / 10)


def matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


def loose(call):
    """optax computes 1 - b**t in float32, which is off by 6e-5 at the first steps."""
    return dataclasses.replace(call, float32=5e-5, why=loose.__doc__)


# The variance of one value is rounding, and the first update that divided by its root is a different large number.
FLOAT64 = dataclasses.replace(shared("scale_by_stddev", 0.8, 1e-3, 0.0, True, True), float32=None)

CALLS = [
    shared("identity"),
    shared("scale", 0.3),
    Shared("scale_by_lr", (0.3,), at="scale_by_learning_rate"),
    Shared("scale_by_lr", (None,), at="scale_by_learning_rate"),
    Shared("scale_by_lr", (halving,), {"flip_sign": False}, "scale_by_learning_rate"),
    shared("scale_by_schedule", halving),
    shared("trace", 0.9),
    shared("trace", 0.9, True),
    shared("scale_by_rms"),
    shared("scale_by_rms", 0.8, 1e-3, 0.5, False, True),
    shared("scale_by_stddev", 0.8, 1e-3),
    shared("scale_by_stddev", 0.8, 1e-3, 0.5, False),
    shared("scale_by_rss"),
    shared("scale_by_rss", 0.0, 1e-3),
    loose(shared("scale_by_adam")),
    loose(shared("scale_by_adam", 0.8, 0.95, 1e-4, 1e-4, nesterov=True)),
    shared("add_decayed_weights", 0.1),
    shared("add_decayed_weights", halving),
    shared("add_decayed_weights", 0.1, matrices),
    shared("clip", 0.3),
    shared("clip_by_global_norm", 0.5),
    shared("clip_by_global_norm", 500.0),
    shared("clip_by_block_rms", 0.3),
    shared("sgd", 0.01),
    shared("sgd", halving, momentum=0.9),
    shared("sgd", 0.01, momentum=0.9, nesterov=True),
    shared("adam", 0.01),
    shared("adam", halving, 0.8, 0.99, 1e-7, 1e-8),
    shared("adam", 0.01, nesterov=True),
    shared("adamw", 0.01, weight_decay=0.1),
    shared("adamw", halving, weight_decay=0.1, mask=matrices),
    shared("nadam", 0.01),
    shared("nadamw", 0.01),
    shared("adagrad", 0.01),
    shared("adagrad", 0.01, 0.0, 1e-4),
    shared("rmsprop", 0.01),
    shared("rmsprop", 0.01, 0.8, 1e-3, 0.5, False, momentum=0.9),
    shared("rmsprop", 0.01, eps=1e-3, centered=True, momentum=0.9, nesterov=True),
    shared("rmsprop", 0.01, bias_correction=True),
    FLOAT64,
]
