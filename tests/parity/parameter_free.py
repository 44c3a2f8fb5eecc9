# SPDX-License-Identifier: Apache-2.0
"""Rules that find their learning rate, where optax has their formulas. Where not: tests/differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from support import problems
from support.parity import shared


def halving(count):
    return 1 / (1 + count / 10)


def matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


def contrib(name, *args, **kwargs):
    return dataclasses.replace(shared(name, *args, **kwargs), at=f"contrib.{name}")


def value(params):
    found = problems.value({n: np.asarray(p, np.float64) for n, p in params.items()})
    return {"value": jnp.asarray(found, params["vector"].dtype)}


def valued(name, *args, **kwargs):
    return dataclasses.replace(contrib(name, *args, **kwargs), extra=value)


CALLS = [
    contrib("dog"),
    contrib("dog", halving, ("distance", 0.3), 0.5, 0.1),
    contrib("dog", 0.5, ("learning_rate", 0.2), weight_decay=0.1, mask=matrices),
    contrib("dowg"),
    contrib("dowg", halving, 0.3, 0.5, 0.1, matrices),
    contrib("scale_by_cocob"),
    contrib("scale_by_cocob", 3.0, 0.5),
    contrib("cocob"),
    contrib("cocob", halving, 3.0, 0.5, 0.1, matrices),
    contrib("dadapt_adamw"),
    contrib("dadapt_adamw", halving, (0.8, 0.9), 0.1, 0.01, 0.1),
    contrib("prodigy"),
    contrib("prodigy", halving, (0.8, 0.9), 0.7, 0.1, 0.01, 1.5, 0.1, True),
    # Without weight decay: with it, optax leaves the paper.
    valued("momo"),
    valued("momo", 0.1, 0.7, 2.0, adapt_lower_bound=True),
    valued("momo", halving, 0.7, -5.0),
    valued("momo_adam"),
    valued("momo_adam", 1.0, 0.8, 0.9, 0.1, 2.0, adapt_lower_bound=True),
    valued("momo_adam", halving, 0.8, 0.9, 0.1, -5.0),
    contrib("mechanize", optax.sgd(1.0)),
    contrib("mechanize", optax.adam(halving), 0.3, 1e-4, 0.05, 3),
]
