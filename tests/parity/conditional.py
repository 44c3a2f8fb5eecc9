# SPDX-License-Identifier: Apache-2.0
"""Wrappers that run the inner transformation or do not. With gradients that are not finite: tests/wrappers."""

import dataclasses

import optax

from support.parity import shared


def every_third(step):
    return step % 3 == 1


def while_small(step, *, value, **extra):
    return step < value


def with_value(params):
    return {"value": 8.0}


DECAYED = optax.adamw(0.01, weight_decay=0.3)

CALLS = [
    shared("apply_if_finite", DECAYED, 2),
    shared("conditionally_mask", DECAYED, every_third),
    shared("conditionally_transform", DECAYED, every_third),
    dataclasses.replace(shared("conditionally_mask", DECAYED, while_small, True), extra=with_value),
    dataclasses.replace(shared("conditionally_transform", DECAYED, while_small, True), extra=with_value),
]
