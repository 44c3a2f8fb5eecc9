# SPDX-License-Identifier: Apache-2.0
"""The same run with PyTorch and with gradtx: 50 steps in float64 from the same start."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from support import problems

STEPS = 50


def run_torch(make: Callable[[list], Any]) -> dict[str, np.ndarray]:
    """The parameters after the steps of `make(parameters)`, an optimizer of torch.optim."""
    import torch  # here, as only some environments have it

    params = {n: torch.tensor(p, dtype=torch.float64, requires_grad=True) for n, p in problems.start().items()}
    optimizer = make(list(params.values()))
    for _ in range(STEPS):
        gradients = problems.gradient({n: p.detach().numpy() for n, p in params.items()})
        for n, p in params.items():
            p.grad = torch.tensor(gradients[n], dtype=torch.float64)
        optimizer.step()
    return {n: p.detach().numpy() for n, p in params.items()}


def run_gradtx(tx: Any) -> dict[str, jax.Array]:
    """The same with a transformation."""
    params = jax.tree.map(jnp.asarray, problems.start())
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(STEPS):
        gradients = problems.gradient({n: np.asarray(p) for n, p in params.items()})
        updates, state = update(jax.tree.map(jnp.asarray, gradients), state, params)
        params = gradtx.apply_updates(params, updates)
    return params
