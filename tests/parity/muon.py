# SPDX-License-Identifier: Apache-2.0
"""Muon."""

import dataclasses

import jax
import optax.contrib

from support.parity import shared

Numbers = optax.contrib.MuonDimensionNumbers


def halving(count):
    return 0.01 / (1 + count / 10)


def matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


def numbers(params):
    return jax.tree.map(lambda p: Numbers(-2, -1) if p.ndim >= 2 else None, params)


def muon(*args, **kwargs):
    """Five products of matrices amplify rounding, and optax computes 1 - b**t in float32."""
    call = shared("muon", *args, **kwargs)
    return dataclasses.replace(call, at="contrib.muon", float32=1e-4, why=muon.__doc__)


def smoothed(call):
    """optax has another place for eps in these two sizes."""
    return dataclasses.replace(call, float64=1e-6, why=smoothed.__doc__)


CALLS = [
    muon(0.01),
    muon(halving, nesterov=False, ns_steps=3, beta=0.8),
    muon(0.01, ((3.0, -4.0, 2.0), (2.0, -1.5, 0.5)), adaptive=True, consistent_rms=0.2),
    muon(0.01, weight_decay=0.1, weight_decay_mask=matrices, adam_weight_decay=0.2, adam_learning_rate=halving),
    muon(0.01, eps=1e-2, adam_b1=0.5, adam_b2=0.9, adam_eps_root=0.1, muon_weight_dimension_numbers=numbers),
    muon(0.01, preconditioning="spectral"),
    smoothed(muon(0.01, preconditioning="schatten")),
    smoothed(muon(0.01, preconditioning="aol")),
]
