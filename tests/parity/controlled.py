# SPDX-License-Identifier: Apache-2.0
"""reduce_on_plateau. Lookahead, whose parameters are a pair in optax, is in tests/wrappers/test_lookahead.py."""

import dataclasses

import jax
import jax.numpy as jnp

from support.parity import shared


def metric(params):
    return {"value": sum(jnp.sum(jnp.abs(p)) for p in jax.tree.leaves(params))}


def contrib(name, *args, **kwargs):
    return dataclasses.replace(shared(name, *args, **kwargs), at=f"contrib.{name}", extra=metric)


CALLS = [
    contrib("reduce_on_plateau"),
    contrib("reduce_on_plateau", 0.5, 2),
    contrib("reduce_on_plateau", factor=0.7, patience=1, rtol=0.05, atol=0.1, cooldown=2),
    contrib("reduce_on_plateau", factor=0.7, patience=2, accumulation_size=3, min_scale=0.3),
]
