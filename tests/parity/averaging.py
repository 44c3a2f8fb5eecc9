# SPDX-License-Identifier: Apache-2.0
"""Schedule-Free, MADGRAD, SAM, complex parameters. What takes functions or examples is in tests/transforms."""

import dataclasses

import optax

from support.parity import shared


def contrib(name, *args, **kwargs):
    return dataclasses.replace(shared(name, *args, **kwargs), at=f"contrib.{name}")


def rooted(call):
    """optax takes the root of the step in float32."""
    return dataclasses.replace(call, float64=1e-6, why=rooted.__doc__)


def normalized(*optimizers):
    return optax.chain(optax.normalize_by_update_norm(), *optimizers)


ASCENT = normalized(optax.sgd(0.05))
STATEFUL_ASCENT = normalized(optax.adam(0.05))
DECAYED = optax.adamw(0.01, weight_decay=0.3)

CALLS = [
    contrib("schedule_free", optax.sgd(0.1), 0.1),
    contrib("schedule_free", DECAYED, 0.01, 0.8, 1.0),
    contrib("schedule_free_sgd", 0.1),
    contrib("schedule_free_sgd", 0.1, None, 0.8, 0.1, 1.0),
    contrib("schedule_free_adamw", 0.01),
    contrib("schedule_free_adamw", 0.01, None, 0.8, 0.95, 1e-4, 0.1, 1.5),
    rooted(contrib("scale_by_madgrad", 0.1)),
    rooted(contrib("scale_by_madgrad", lambda t: 0.1 / (1 + t), 0.7, 1e-3)),
    rooted(contrib("madgrad", 0.1)),
    rooted(contrib("madgrad", 0.1, 0.0, 0.1, 1e-3)),
    contrib("sam", optax.sgd(0.1), ASCENT),
    contrib("sam", DECAYED, STATEFUL_ASCENT, 3),
    contrib("sam", DECAYED, STATEFUL_ASCENT, 4, False),
    contrib("split_real_and_imaginary", optax.adam(0.1)),
    contrib("normalize"),
]
