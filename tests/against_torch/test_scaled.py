# SPDX-License-Identifier: Apache-2.0
"""Adafactor against PyTorch's.

PyTorch's `lr` bounds a step of its own, min(lr, 1 / sqrt(t)), which here is a schedule. It factors the last two axes of
everything with two, gradtx the two largest, so the shapes are such that these are the same. Its `eps[0]` is a floor of
the root where the paper adds eps to g²; both are too small to count. Its weight decay comes first and is multiplied by
`lr`, not by the step that depends on t, and the scale of the parameter is taken before it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

torch = pytest.importorskip("torch")

SHAPES = {"scalar": (), "vector": (5,), "matrix": (3, 4), "wide": (1, 4), "cube": (2, 3, 4)}
STEPS = 50


def gradients():
    rng = np.random.default_rng(3)
    return [{n: rng.normal(size=shape) for n, shape in SHAPES.items()} for _ in range(STEPS)]


def start():
    rng = np.random.default_rng(2)
    return {n: rng.normal(size=shape) for n, shape in SHAPES.items()}


def run_torch(**settings):
    params = {n: torch.nn.Parameter(torch.tensor(p, dtype=torch.float64)) for n, p in start().items()}
    optimizer = torch.optim.Adafactor(params.values(), **settings)
    for grads in gradients():
        for n, p in params.items():
            p.grad = torch.tensor(grads[n], dtype=torch.float64)
        optimizer.step()
    return {n: p.detach().numpy() for n, p in params.items()}


def run(tx):
    params = jax.tree.map(jnp.asarray, start())
    state, update = tx.init(params), jax.jit(tx.update)
    for grads in gradients():
        updates, state = update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    return params


def relative(lr):
    return lambda count: jnp.minimum(lr, (1 + count.astype(float)) ** -0.5)


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({"lr": 0.3}, lambda: gradtx.adafactor(relative(0.3), 1)),
        (
            {"lr": 0.3, "beta2_decay": -0.6, "d": 1.05, "eps": (1e-30, 0.9)},
            lambda: gradtx.adafactor(relative(0.3), 1, 0.6, clipping_threshold=1.05, min_scale=0.9),
        ),
        # The floor of the scale hides that PyTorch takes it of the parameter before the decay.
        (
            {"lr": 0.2, "weight_decay": 0.1, "eps": (1e-30, 9.0)},
            lambda: gradtx.adafactor(relative(0.2), 1, weight_decay_rate=0.02, min_scale=9.0),
        ),
    ],
    ids=["defaults", "all", "decay"],
)
def test_adafactor(x64, settings, make):
    found, expected = run(make()), run_torch(**settings)
    for n, p in expected.items():
        np.testing.assert_allclose(found[n], p, rtol=1e-10, atol=1e-12, err_msg=n)
