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


def rows(title, column=1, table=None):
    """The first cell and that of the call, of each row of the tables under a heading; of the call, what is code.

    A table is named by its first cell; without a name, those of all tables are meant.
    """
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found, head = {}, None
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        code = re.match(r"`([^`]+)`", cells[column]) if cells else None
        head = head if code or not cells or cells[0].startswith("-") else cells[0]
        if code and table in (None, head):
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


@pytest.mark.parametrize(("system", "call"), rows("A textbook", 2).items())
def test_textbook(system, call):
    np.testing.assert_allclose(run(call), iterates(TEXTBOOK[system]), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("theirs", "call"), [x for x in rows("TensorFlow and Keras").items() if x[0] in KERAS])
def test_keras(theirs, call):
    # Where ε is added elsewhere, the difference is in the order of ε.
    rtol = 1e-6 if theirs.startswith("Adamax") else 1e-9
    np.testing.assert_allclose(run(call), iterates(KERAS[theirs]), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize(("theirs", "call"), rows("PyTorch", table="torch.optim").items())
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


def made(theirs):
    """The transformation of a row of the tables that are not run on one vector."""
    found = {**rows("PyTorch", table="besides"), **rows("TensorFlow and Keras")}
    (call,) = (call for name, call in found.items() if name.startswith(theirs))
    return eval(call, {"gradtx": gradtx, **NAMES})


MATRICES = {"wide": (2, 3), "tall": (4, 2)}


def orthogonal(x, eps):
    """Five steps of Newton and Schulz in double precision, on the side with fewer rows."""
    x = x / (np.linalg.norm(x) + eps)
    x = x.T if (tall := x.shape[0] > x.shape[1]) else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


def muon_in_numpy(p, gs, rate, decay, factor, nesterov):
    m = np.zeros_like(p)
    for g in gs:
        m = 0.95 * m + g
        p = p - rate * (factor * orthogonal(g + 0.95 * m if nesterov else m, 1e-7) + decay * p)
    return p


@pytest.mark.slow
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
    ("theirs", "rate", "decay", "factor"),
    [
        ("Muon(lr=0.02)", 0.02, 0.1, lambda n, m: max(1, m / n) ** 0.5),  # PyTorch's, for inputs and outputs
        ("Muon(0.001)", 0.001, 0.004, lambda n, m: 0.2 * max(n, m) ** 0.5),  # that of Keras
    ],
)
def test_muon(theirs, rate, decay, factor, nesterov):
    rng = np.random.default_rng(2)
    params = {n: rng.normal(size=shape) for n, shape in MATRICES.items()}
    steps = [{n: rng.normal(size=shape) for n, shape in MATRICES.items()} for _ in range(4)]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        tx, found = made(theirs).replace(nesterov=nesterov), jax.tree.map(jnp.asarray, params)
        state, update = tx.init(found), jax.jit(tx.update)
        for g in steps:
            u, state = update(jax.tree.map(jnp.asarray, g), state, found)
            found = gradtx.apply_updates(found, u)
    for n, shape in MATRICES.items():
        want = muon_in_numpy(params[n], [g[n] for g in steps], rate, decay, factor(*shape), nesterov)
        np.testing.assert_allclose(found[n], want, rtol=1e-5, atol=1e-7)


def test_an_average_of_keras_begins_one_step_later():
    tx, theta, average = made("SGD(0.01, use_ema"), jnp.asarray(START), None
    state, first = tx.init(theta), None
    for t, g in enumerate(gradients(), 1):
        u, state = tx.update(jnp.asarray(g, theta.dtype), state, theta)
        theta = gradtx.apply_updates(theta, u)
        first = np.float64(theta) if first is None else first
        average = np.float64(theta) if average is None else 0.99 * average + 0.01 * np.float64(theta)
        ours = gradtx.eval_params(state, theta)
        np.testing.assert_allclose(ours, average - 0.99**t * (first - START), rtol=1e-6)


def descended(tx, params, steps, **extra):
    state = tx.init(params)
    for g in steps:
        u, state = tx.update(g, state, params, **extra)
        params = gradtx.apply_updates(params, u)
    return params, state


def clipped_by_the_norm_of_all(tx):
    (found, _) = descended(
        tx, {"w": jnp.zeros(2), "b": jnp.zeros([])}, [{"w": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(4.0)}]
    )
    np.testing.assert_allclose([*found["w"], found["b"]], [-0.03, 0.0, -0.04], rtol=1e-6)


def clipped_by_value(tx):
    found, _ = descended(tx, jnp.zeros(3), [jnp.asarray([3.0, -4.0, 0.25])])
    np.testing.assert_allclose(found, [-0.05, 0.05, -0.025], rtol=1e-6)


def in_groups(tx):
    found, _ = descended(tx, {"w": jnp.zeros(2), "b": jnp.zeros(1)}, [{"w": jnp.ones(2), "b": jnp.ones(1)}])
    np.testing.assert_allclose([*found["w"], *found["b"]], [-0.1, -0.1, -0.01], rtol=1e-6)


def scaled(tx):
    found, state = descended(tx, jnp.zeros(1), [jnp.asarray([x]) for x in (8.0, np.inf, 4.0, 4.0)])
    np.testing.assert_allclose(found, [-0.1 - 0.1 - 0.1], rtol=1e-6)
    assert gradtx.loss_scale(state) == 8.0


def at_the_minimum(tx):
    p = jnp.asarray([-1.2, 1.0])

    def rosenbrock(p):
        return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2

    np.testing.assert_allclose(gradtx.minimize(rosenbrock, p, tx).params, 1.0, atol=1e-3)


BESIDES = {
    "LBFGS": pytest.param("LBFGS", at_the_minimum, marks=pytest.mark.slow),
    "Muon": pytest.param("Muon(lr", lambda tx: None),  # test_muon
    "clip_grad_norm_": pytest.param("clip_grad_norm_", clipped_by_the_norm_of_all),
    "clip_grad_value_": pytest.param("clip_grad_value_", clipped_by_value),
    '{"params": [b], "lr": 0.01}, {"params": [w]}]': pytest.param('[{"params"', in_groups),
    "GradScaler": pytest.param("GradScaler", scaled),
}


@pytest.mark.parametrize(("theirs", "check"), BESIDES.values())
def test_what_is_besides_the_optimizers_of_pytorch(theirs, check):
    check(made(theirs))


def test_no_row_is_left_out():
    assert set(rows("A textbook", 2)) == set(TEXTBOOK)
    assert set(rows("TensorFlow and Keras")) - {"Muon(0.001)"} == set(KERAS)
    assert len(rows("PyTorch", table="torch.optim")) >= 15
    assert set(BESIDES) == {call.partition("(")[0].lstrip("[") for call in rows("PyTorch", table="besides")}


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
