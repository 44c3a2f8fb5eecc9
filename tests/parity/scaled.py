# SPDX-License-Identifier: Apache-2.0
"""Signs, norms, optimism, noise, Polyak's step, Adafactor."""

import dataclasses

import jax
import jax.numpy as jnp

from support.parity import shared


def halving(count):
    return 0.01 / (1 + count / 10)


def matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


def loose(call):
    """optax computes 1 - b**t in float32, which is off by 6e-5 at the first steps."""
    return dataclasses.replace(call, float32=5e-5, why=loose.__doc__)


def single(call):
    """optax computes Adafactor's decay 1 - t**-rate in float32, also when 64 bits are enabled."""
    return dataclasses.replace(call, float32=1e-5, float64=1e-6, why=single.__doc__)


def rounded(call):
    """optax rounds the average to the dtype in which it is stored before it uses it, gradtx afterwards."""
    return dataclasses.replace(call, float64=1e-6, why=rounded.__doc__)


def valued(call):
    def value(params):
        return {"value": sum(jnp.sum(p**2) for p in jax.tree.leaves(params))}

    return dataclasses.replace(call, extra=value)


CALLS = [
    shared("scale_by_lion"),
    shared("scale_by_lion", 0.8, 0.95, jnp.float32),
    shared("scale_by_lion", 0.8, 0.95, mode="smooth", smooth_beta=2.0),
    shared("scale_by_lion", 0.2, 0.95, mode="refined"),
    shared("lion", 0.01),
    shared("lion", halving, 0.8, 0.95, None, 0.1, matrices),
    shared("scale_by_sign"),
    shared("sign_sgd", halving),
    shared("signum", 0.01),
    rounded(shared("signum", halving, 0.5, jnp.float32)),
    loose(shared("ema", 0.9)),
    shared("ema", 0.9, False),
    rounded(shared("ema", 0.9, False, jnp.float32)),
    shared("scale_by_trust_ratio"),
    shared("scale_by_trust_ratio", 2.0, 0.5, 0.1),
    shared("scale_by_param_block_norm"),
    shared("scale_by_param_block_norm", 2.0),
    shared("scale_by_param_block_rms"),
    shared("scale_by_param_block_rms", 1.0),
    shared("normalize_by_update_norm"),
    shared("normalize_by_update_norm", 2.0, 0.5),
    # Without weight decay: see tests/differences/scaled.py.
    shared("lars", 0.01),
    shared("lars", halving, 0.0, True, 0.1, 0.1, matrices, 0.5, True),
    shared("lars", 0.01, 0.1, matrices, 0.1, 0.1, False),
    loose(shared("lamb", 0.01)),
    loose(shared("lamb", halving, 0.8, 0.95, 1e-3, 1e-3, 0.1, matrices)),
    shared("fromage", 0.01),
    shared("fromage", 0.01, 2.0),
    shared("scale_by_optimistic_gradient"),
    shared("scale_by_optimistic_gradient", 0.3, 0.7),
    shared("optimistic_gradient_descent", halving, 0.3, 0.7),
    shared("add_noise", 0.3, 0.55, 0),
    shared("add_noise", 0.3, 0.0, 7),
    shared("noisy_sgd", 0.01, key=3),
    shared("noisy_sgd", halving, 0.3, 0.8, 7),
    valued(shared("scale_by_polyak")),
    valued(shared("scale_by_polyak", 60.0, 0.3, 0.5)),
    valued(shared("scale_by_polyak", 60.0, 0.3, 0.5, "sps+")),
    valued(shared("polyak_sgd", 0.3, 1.0, 60.0, 0.5)),
    single(shared("scale_by_factored_rms")),
    single(shared("scale_by_factored_rms", True, 0.6, 0, 2, 1e-3)),
    single(shared("scale_by_factored_rms", False, 0.6)),
    single(shared("adafactor")),
    single(shared("adafactor", 0.01, 2, momentum=0.9)),
    single(shared("adafactor", halving, 2, 0.6, 0, False, None, 0.9, jnp.float32, 0.1, 1e-3, True, matrices)),
    single(shared("adafactor", 0.01, 2, 0.6, 0, True, 0.3, weight_decay_rate=0.1, factored=False)),
]
