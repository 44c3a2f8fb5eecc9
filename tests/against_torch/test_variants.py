# SPDX-License-Identifier: Apache-2.0
"""Variants at the settings where they are rules of torch.optim, which has none of them itself; 50 steps in float64."""

import numpy as np
import pytest

import gradtx as gt
from support.torch_runs import run_gradtx, run_torch

torch = pytest.importorskip("torch")

PAIRS = {
    # weight_decay of torch's AdamW is multiplied by the rate, that of its other optimizers is added to the gradient.
    "decoupled": (
        lambda: gt.chain(gt.adam(0.03), gt.decay_weights(0.1, "decoupled", learning_rate=0.03)),
        lambda ps: torch.optim.AdamW(ps, 0.03, weight_decay=0.1),
    ),
    "independent": (
        lambda: gt.chain(gt.adam(0.03), gt.decay_weights(0.003)),
        lambda ps: torch.optim.AdamW(ps, 0.03, weight_decay=0.1),
    ),
    "coupled, Adam": (
        lambda: gt.chain(gt.decay_weights(0.1, "coupled"), gt.adam(0.03)),
        lambda ps: torch.optim.Adam(ps, 0.03, weight_decay=0.1),
    ),
    "coupled, momentum": (
        lambda: gt.chain(gt.decay_weights(0.1, "coupled"), gt.sgd(0.03, momentum=0.9)),
        lambda ps: torch.optim.SGD(ps, 0.03, momentum=0.9, weight_decay=0.1),
    ),
    "QHAdam is Adam with mixtures of 1": (
        lambda: gt.qhadam(0.03, 0.8, 0.95, 1.0, 1.0),
        lambda ps: torch.optim.Adam(ps, 0.03, (0.8, 0.95)),
    ),
    "QHM is descent with a mixture of 0": (lambda: gt.qhm(0.1, 0.9, 0.0), lambda ps: torch.optim.SGD(ps, 0.1)),
    "AggMo is momentum with one decay": (
        lambda: gt.aggmo(0.03, (0.9,)),
        lambda ps: torch.optim.SGD(ps, 0.03, momentum=0.9),
    ),
    "MARS is AdamW without a correction": (
        lambda: gt.mars(0.03, 0.8, 0.95, weight_decay=0.1, gamma=0.0, max_norm=None),
        lambda ps: torch.optim.AdamW(ps, 0.03, (0.8, 0.95), weight_decay=0.1),
    ),
    "StableAdamW is AdamW below its threshold": (
        lambda: gt.stable_adamw(0.03, 0.8, 0.95, 1e-8, weight_decay=0.1, threshold=1e3),
        lambda ps: torch.optim.AdamW(ps, 0.03, (0.8, 0.95), weight_decay=0.1),
    ),
    "AdEMAMix is AdamW without its slow average": (
        lambda: gt.ademamix(0.03, alpha=0.0, weight_decay=0.1),
        lambda ps: torch.optim.AdamW(ps, 0.03, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_same_parameters(name, x64):
    ours, theirs = PAIRS[name]
    found, expected = run_gradtx(ours()), run_torch(theirs)
    for n, p in expected.items():
        np.testing.assert_allclose(found[n], p, rtol=1e-10, atol=1e-10, err_msg=n)
