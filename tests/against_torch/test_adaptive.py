# SPDX-License-Identifier: Apache-2.0
"""The rules that torch.optim has, too: the same parameters after 50 steps in float64, with the call that matches."""

import numpy as np
import pytest

import gradtx as gt
from support.torch_runs import run_gradtx, run_torch

torch = pytest.importorskip("torch")


@pytest.fixture
def doubles():
    """torch keeps NAdam's product of momentum weights in the default dtype, also for float64 parameters."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def momentum(rate, *arguments, **more):
    """torch's momentum is undampened at its first step."""
    return gt.chain(gt.scale_by_momentum(*arguments, dampen_first=False, **more), gt.scale_by_lr(rate))


def decayed(weight_decay, tx):
    """torch's weight_decay is L2 regularization, except in AdamW: before all else."""
    return gt.chain(gt.add_decayed_weights(weight_decay), tx)


CASES = {
    "SGD": (lambda ps: torch.optim.SGD(ps, 0.1), lambda: gt.sgd(0.1)),
    "SGD, L2": (lambda ps: torch.optim.SGD(ps, 0.1, weight_decay=0.1), lambda: decayed(0.1, gt.sgd(0.1))),
    "SGD, momentum": (lambda ps: torch.optim.SGD(ps, 0.1, 0.9), lambda: gt.sgd(0.1, 0.9)),
    "SGD, dampening": (lambda ps: torch.optim.SGD(ps, 0.1, 0.9, 0.3), lambda: momentum(0.1, 0.9, 0.3)),
    "SGD, Nesterov": (lambda ps: torch.optim.SGD(ps, 0.1, 0.9, nesterov=True), lambda: gt.sgd(0.1, 0.9, True)),
    "SGD, maximize": (
        lambda ps: torch.optim.SGD(ps, 0.001, 0.9, maximize=True),
        lambda: gt.chain(gt.scale(-1.0), gt.sgd(0.001, 0.9)),
    ),
    # Both learning rates are 0.3 / (1 + 0.1 (t - 1)); the denominators have eps outside the root.
    "Adagrad": (
        lambda ps: torch.optim.Adagrad(ps, 0.3, lr_decay=0.1, initial_accumulator_value=0.2, eps=1e-3),
        lambda: gt.adagrad(gt.inverse_time_decay(0.3, 1.0, 0.1), 0.2, 1e-3, eps_in_sqrt=False),
    ),
    # torch accumulates before the learning rate, gradtx after: the same for a constant rate.
    "RMSprop": (
        lambda ps: torch.optim.RMSprop(ps, 0.01, 0.9, 1e-3, momentum=0.7),
        lambda: gt.rmsprop(0.01, 0.9, 1e-3, eps_in_sqrt=False, momentum=0.7),
    ),
    "RMSprop, centered": (
        lambda ps: torch.optim.RMSprop(ps, 0.01, 0.9, 1e-3, centered=True),
        lambda: gt.rmsprop(0.01, 0.9, 1e-3, eps_in_sqrt=False, centered=True),
    ),
    "Adam": (lambda ps: torch.optim.Adam(ps, 0.03, (0.8, 0.95), 1e-6), lambda: gt.adam(0.03, 0.8, 0.95, 1e-6)),
    "Adam, L2": (lambda ps: torch.optim.Adam(ps, 0.03, weight_decay=0.1), lambda: decayed(0.1, gt.adam(0.03))),
    # torch decays p before the step, by the p of before it: the same.
    "AdamW": (lambda ps: torch.optim.AdamW(ps, 0.03, weight_decay=0.1), lambda: gt.adamw(0.03, weight_decay=0.1)),
    # torch keeps the largest nu and corrects that.
    "Adam, AMSGrad": (
        lambda ps: torch.optim.Adam(ps, 0.03, (0.8, 0.9), 1e-4, amsgrad=True),
        lambda: gt.amsgrad(0.03, 0.8, 0.9, 1e-4, max_of_corrected=False),
    ),
    "Adamax": (lambda ps: torch.optim.Adamax(ps, 0.03, (0.8, 0.9), 1e-3), lambda: gt.adamax(0.03, 0.8, 0.9, 1e-3)),
    # torch, as the authors, adds eps to the root before its bias is corrected: the same for eps=0.
    "RAdam": (lambda ps: torch.optim.RAdam(ps, 0.03, eps=0.0), lambda: gt.radam(0.03, eps=0.0)),
    "RAdam, b2": (lambda ps: torch.optim.RAdam(ps, 0.03, (0.8, 0.9), 0.0), lambda: gt.radam(0.03, 0.8, 0.9, 0.0)),
    "NAdam": (lambda ps: torch.optim.NAdam(ps, 0.03), lambda: gt.nadam(0.03, momentum_decay=0.004)),
    "NAdam, schedule": (
        lambda ps: torch.optim.NAdam(ps, 0.03, (0.8, 0.95), 1e-4, momentum_decay=0.5),
        lambda: gt.nadam(0.03, 0.8, 0.95, 1e-4, momentum_decay=0.5),
    ),
    "NAdam, decoupled": (
        lambda ps: torch.optim.NAdam(ps, 0.03, weight_decay=0.1, decoupled_weight_decay=True),
        lambda: gt.nadamw(0.03, weight_decay=0.1, momentum_decay=0.004),
    ),
    # The schedule has ended, 0.96^1000 being nothing: nadam's constant momentum.
    "NAdam, constant": (lambda ps: torch.optim.NAdam(ps, 0.03, momentum_decay=1000), lambda: gt.nadam(0.03)),
    "Adadelta": (lambda ps: torch.optim.Adadelta(ps), lambda: gt.adadelta()),
    "Adadelta, L2": (
        lambda ps: torch.optim.Adadelta(ps, 0.5, 0.8, 1e-3, 0.1),
        lambda: gt.adadelta(0.5, 0.8, 1e-3, 0.1),
    ),
    "Rprop": (lambda ps: torch.optim.Rprop(ps, 0.1), lambda: gt.rprop(0.1)),
    "Rprop, limits": (
        lambda ps: torch.optim.Rprop(ps, 0.1, (0.7, 1.5), (1e-2, 0.2)),
        lambda: gt.rprop(0.1, 0.7, 1.5, 1e-2, 0.2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_same_as_torch(name, x64, doubles):
    make, ours = CASES[name]
    expected = run_torch(make)
    for n, p in run_gradtx(ours()).items():
        np.testing.assert_allclose(p, expected[n], rtol=1e-10, atol=1e-10, err_msg=n)
