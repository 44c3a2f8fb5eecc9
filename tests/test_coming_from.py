# SPDX-License-Identifier: Apache-2.0
"""Every row of docs/coming_from.md: its call gives the iterates of its formula, or of PyTorch."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from support.public import NAMES
from support.textbook import KERAS, START, TEXTBOOK, gradients, iterates

PAGE = (Path(__file__).parent.parent / "docs" / "coming_from.md").read_text()


def rows(title):
    """The first and the last cell of each row of the table under a heading; of the last, what is code."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        code = re.match(r"`([^`]+)`", cells[-1]) if cells else None
        if code:
            found[cells[0].strip("`")] = code.group(1)
    return found


def run(call):
    """The iterates of a call as the page writes it, in float64."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        tx = eval(call, {"gradtx": gradtx, **NAMES})
        theta, found = jnp.asarray(START), []
        state, update = tx.init(theta), jax.jit(tx.update)
        for g in gradients():
            u, state = update(jnp.asarray(g), state, theta)
            theta = gradtx.apply_updates(theta, u)
            found.append(np.asarray(theta))
    return np.stack(found)


@pytest.mark.parametrize(("system", "call"), rows("A textbook").items())
def test_textbook(system, call):
    np.testing.assert_allclose(run(call), iterates(TEXTBOOK[system]), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("theirs", "call"), rows("TensorFlow and Keras").items())
def test_keras(theirs, call):
    np.testing.assert_allclose(run(call), iterates(KERAS[theirs]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("theirs", "call"), rows("PyTorch").items())
def test_pytorch(theirs, call):
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.tensor(START))
    name, _, arguments = theirs.partition("(")
    optimizer = eval(f"{name}([parameter], {arguments}", {**vars(torch.optim), "parameter": parameter})
    found = []
    for g in gradients():
        parameter.grad = torch.tensor(g)
        optimizer.step()
        found.append(parameter.detach().numpy().copy())
    np.testing.assert_allclose(run(call), np.stack(found), rtol=1e-9, atol=1e-12)


def test_no_row_is_left_out():
    assert set(rows("A textbook")) == set(TEXTBOOK)
    assert set(rows("TensorFlow and Keras")) == set(KERAS)
    assert len(rows("PyTorch")) >= 15


def test_the_momentum_rows_are_those_of_each_other():
    """The averaged form equals PyTorch's with rate α (1 - β); the velocity form as well, until the rate changes."""
    averaged = run("chain(scale_by_momentum(0.9, averaged=True), scale_by_lr(1.0))")
    np.testing.assert_allclose(averaged, run("sgd(0.1, momentum=0.9)"), rtol=1e-9)
    np.testing.assert_allclose(run("chain(scale(0.1), trace(0.9), scale(-1.0))"), averaged, rtol=1e-9)
    falling = "piecewise_values_schedule([3], [0.1, 0.01])"
    inside = run(f"chain(scale_by_schedule({falling}), trace(0.9), scale(-1.0))")
    assert not np.allclose(inside[3:], run(f"sgd({falling}, momentum=0.9)")[3:])


def test_the_impulse_response_of_an_average():
    with jax.enable_x64(True):
        tx = gradtx.ema(0.9, debias=False)
        state, found = tx.init(jnp.zeros([])), []
        for k in range(5):
            u, state = tx.update(jnp.asarray(1.0 if k == 0 else 0.0), state)
            found.append(float(u))
    np.testing.assert_allclose(found, [0.1 * 0.9**k for k in range(5)], rtol=1e-12)


BULLETS = PAGE.partition("What needs more than a line:")[2].partition("\n## ")[0]
CALLS = [c for c in re.findall(r"`([a-z_]+\([^`]*\))`", BULLETS) if c.partition("(")[0] in NAMES]


@pytest.mark.parametrize("call", CALLS)
def test_what_needs_more_than_a_line_brings_a_bowl_to_its_minimum(call):
    """In 60 steps, behind it a descent where it is a stage."""
    tx = eval(call, {"gradtx": gradtx, **NAMES})
    if call.partition("(")[0] in ("add_noise", "early_stopping", "reduce_on_plateau"):
        tx = gradtx.chain(tx, gradtx.sgd(0.1))

    def loss(p):
        return jnp.sum((p - 1.0) ** 2)

    def step(carry, _):
        p, state = carry
        value, grad = jax.value_and_grad(loss)(p)
        u, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=loss)
        return (gradtx.apply_updates(p, u), state), value

    start = jnp.asarray([1.3, 0.8, 1.1])
    (p, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=60)
    assert loss(p) < 0.1 * loss(start)


def test_the_bullets_are_found():
    assert {c.partition("(")[0] for c in CALLS} == {
        *("add_noise", "rprop", "nadam", "lbfgs", "early_stopping", "reduce_on_plateau")
    }
