# SPDX-License-Identifier: Apache-2.0
"""Averaged descent against torch.optim.ASGD.

torch keeps eta and mu as float32 numbers, and gradtx as float64 ones, so they agree to 1e-10 where eta is exact (a
power of two that does not decay) and averaging has not begun, else to float32's rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support import problems

torch = pytest.importorskip("torch")

STEPS = 50


def run_torch(**settings):
    weights = {n: torch.nn.Parameter(torch.tensor(p, dtype=torch.float64)) for n, p in problems.start().items()}
    optimizer = torch.optim.ASGD(weights.values(), **settings)
    for _ in range(STEPS):
        for n, g in problems.gradient({n: w.detach().numpy() for n, w in weights.items()}).items():
            weights[n].grad = torch.tensor(g)
        optimizer.step()
    return tuple({n: f(w) for n, w in weights.items()} for f in (values, lambda w: values(optimizer.state[w]["ax"])))


def values(w):
    return w.detach().numpy()


def run(*settings):
    tx = gt.asgd(*settings)
    params = jax.tree.map(jnp.asarray, problems.start())
    state = tx.init(params)
    for _ in range(STEPS):
        updates, state = tx.update(problems.gradient(jax.tree.map(np.asarray, params)), state, params)
        params = gt.apply_updates(params, updates)
    return params, gt.eval_params(state, params)


@pytest.mark.parametrize(
    ("rate", "lambd", "alpha", "t0", "decay", "tolerance"),
    [
        (0.125, 0.0, 0.75, 1e6, 0.0, 1e-10),
        (0.125, 0.0, 0.5, 1e6, 0.2, 1e-10),
        (0.3, 0.1, 0.6, 10.0, 0.2, 1e-6),
        (0.01, 1e-4, 0.75, 20.0, 0.0, 1e-6),
    ],
)
def test_asgd(rate, lambd, alpha, t0, decay, tolerance, x64):
    found = run(rate, lambd, alpha, t0, decay)
    expected = run_torch(lr=rate, lambd=lambd, alpha=alpha, t0=t0, weight_decay=decay)
    for a, b in zip(found, expected, strict=True):
        for n in b:
            np.testing.assert_allclose(a[n], b[n], rtol=0, atol=tolerance)
