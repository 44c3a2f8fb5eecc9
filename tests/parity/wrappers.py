# SPDX-License-Identifier: Apache-2.0
"""Masks, groups and frozen parameters around the same transformations."""

import jax
import optax

from support.parity import shared


def matrices(tree):
    return jax.tree.map(lambda p: p.ndim > 1, tree)


def groups(tree):
    return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "rest", tree)


NAMES = {"scalar": True, "vector": False, "matrix": True, "cube": True, "kernel": False}
TWO = {"matrix": optax.adamw(0.1), "rest": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9))}

CALLS = [
    shared("masked", optax.adamw(0.1), matrices),
    shared("masked", optax.clip_by_global_norm(0.5), NAMES),
    shared("masked", optax.masked(optax.adam(0.1), NAMES), matrices, mask_compatible_extra_args=True),
    shared("partition", TWO, groups),
    shared("partition", {True: optax.adam(0.1), False: optax.identity()}, NAMES, mask_compatible_extra_args=True),
    shared("partition", {"all": optax.rmsprop(0.1)}, "all"),
    shared("freeze", matrices),
    shared("freeze", NAMES),
    shared("selective_transform", optax.adam(0.1), freeze_mask={**NAMES, "kernel": True}),
    shared("selective_transform", optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)), freeze_mask=NAMES),
]
