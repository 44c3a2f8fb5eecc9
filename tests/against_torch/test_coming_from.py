# SPDX-License-Identifier: Apache-2.0
"""What the page "Coming from" says of PyTorch besides the optimizers, against PyTorch itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

torch = pytest.importorskip("torch")

SHAPES = {"w": (3, 4), "b": (4,)}
RNG = np.random.default_rng(7)
START = {n: RNG.normal(size=shape) for n, shape in SHAPES.items()}
GRADIENTS = [{n: RNG.normal(size=shape) for n, shape in SHAPES.items()} for _ in range(4)]


def theirs(params, make, before_step=None, steps=GRADIENTS):
    """The parameters of PyTorch, by name, after these gradients."""
    params = {n: torch.nn.Parameter(torch.tensor(p)) for n, p in params.items()}
    optimizer = make(params)
    for gradients in steps:
        for n, p in params.items():
            p.grad = torch.tensor(gradients[n])
        if before_step is not None:
            before_step(params)
        optimizer.step()
    return {n: p.detach().numpy() for n, p in params.items()}


def ours(tx, params, steps=GRADIENTS):
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for gradients in steps:
        updates, state = tx.update(jax.tree.map(jnp.asarray, gradients), state, params)
        params = gradtx.apply_updates(params, updates)
    return params


def assert_close(found, want, **tolerance):
    for n in want:
        np.testing.assert_allclose(found[n], want[n], err_msg=n, **tolerance)


@pytest.mark.parametrize(
    ("clip", "clip_", "rtol"),
    [
        (gradtx.clip_by_global_norm, torch.nn.utils.clip_grad_norm_, 1e-6),  # PyTorch divides by the norm and 1e-6
        (gradtx.clip, torch.nn.utils.clip_grad_value_, 1e-12),
    ],
)
def test_clipping(clip, clip_, rtol, x64):
    want = theirs(START, lambda ps: torch.optim.SGD(ps.values(), lr=0.1), lambda ps: clip_(ps.values(), 0.5))
    assert_close(ours(gradtx.chain(clip(0.5), gradtx.sgd(0.1)), START), want, rtol=rtol)


def test_parameter_groups(x64):
    def make(ps):
        return torch.optim.AdamW(
            [{"params": [ps["b"]], "lr": 0.01, "weight_decay": 0.0}, {"params": [ps["w"]]}], lr=0.1
        )

    rules = [("b", {"learning_rate": 0.01, "weight_decay": 0.0})]
    assert_close(
        ours(gradtx.groups(rules, gradtx.adamw(0.1, weight_decay=0.01)), START), theirs(START, make), rtol=1e-9
    )


def test_grad_scaler():
    """The scales after each step, of which two overflow, and the parameters."""
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    tx = gradtx.dynamic_loss_scale(gradtx.sgd(0.1), 8.0, growth_interval=2)
    params = jnp.zeros(1)
    state = tx.init(params)
    for factor in (1.0, 2.0, np.inf, 1.0, np.nan, 1.0, 3.0, 1.0):
        optimizer.zero_grad()
        scaler.scale(p.sum()).backward()
        p.grad *= factor
        scaler.step(optimizer)
        scaler.update()
        gradient = gradtx.loss_scale(state) * jnp.full(1, factor, jnp.float32)
        updates, state = tx.update(gradient, state, params)
        params = gradtx.apply_updates(params, updates)
        assert float(gradtx.loss_scale(state)) == scaler.get_scale()
    np.testing.assert_allclose(params, p.detach().numpy(), rtol=1e-6)


def test_muon():
    """A weight of PyTorch is (outputs, inputs). Its iterations are in bfloat16, which has two or three digits."""
    start, steps = {"w": START["w"]}, [{"w": g["w"]} for g in GRADIENTS]
    want = theirs(start, lambda ps: torch.optim.Muon(ps.values(), lr=0.02), steps=steps)["w"]
    tx = gradtx.muon(0.02, eps=1e-7, weight_decay=0.1, bias_correction=False)
    found = ours(tx, {"w": start["w"].T}, [{"w": g["w"].T} for g in steps])["w"].T
    distance = np.linalg.norm(want - start["w"])
    assert np.linalg.norm(found - want) < 0.03 * distance


def test_lbfgs():
    def rosenbrock(p):
        return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2

    p = torch.nn.Parameter(torch.tensor([-1.2, 1.0]))
    optimizer = torch.optim.LBFGS([p], line_search_fn="strong_wolfe", max_iter=100)

    def closure():
        optimizer.zero_grad()
        value = rosenbrock(p)
        value.backward()
        return value

    optimizer.step(closure)
    found = gradtx.minimize(rosenbrock, jnp.asarray([-1.2, 1.0]), gradtx.lbfgs())
    np.testing.assert_allclose(p.detach().numpy(), 1.0, atol=1e-3)
    np.testing.assert_allclose(found.params, 1.0, atol=1e-3)
