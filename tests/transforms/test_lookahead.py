# SPDX-License-Identifier: Apache-2.0
"""Nesterov's look-ahead form against `trace(r, nesterov=True)`; the proof is in `docs/write_your_own.md`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

RATE, R, STEPS = 0.05, 0.9, 50
START = np.array([1.5, -0.7, 2.0])
FORMS = {
    "velocity": gradtx.chain(gradtx.scale_by_lr(RATE), gradtx.trace(R, nesterov=True)),
    "recipe": gradtx.sgd(RATE, momentum=R, nesterov=True),
}


def gradient(x):
    """Of Σ log cosh(x) + 0.1 Σ x⁴ + 0.3 x₀ x₁ x₂: nothing about it is quadratic. For NumPy and JAX."""
    xp = jnp if isinstance(x, jax.Array) else np
    products = xp.stack([x[1] * x[2], x[0] * x[2], x[0] * x[1]])
    return xp.tanh(x) + 0.4 * x**3 + 0.3 * products


def explicit() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The textbook's iteration: parameters, velocities and the points where the gradient is taken."""
    theta, v = START, np.zeros_like(START)
    rows = [(theta, v, theta - R * v)]
    for _ in range(STEPS):
        v = R * v + RATE * gradient(theta - R * v)
        theta = theta - v
        rows.append((theta, v, theta - R * v))
    thetas, velocities, points = (np.array(column) for column in zip(*rows, strict=True))
    return thetas, velocities, points


@pytest.mark.parametrize("form", FORMS)
def test_a_pure_update_trains_the_look_ahead_point(form: str, x64: None):
    tx = FORMS[form]
    thetas, velocities, points = explicit()
    phi = jnp.asarray(START)
    state = tx.init(phi)
    for theta, v, point in zip(thetas, velocities, points, strict=True):
        trace = next(s.trace for s in state if isinstance(s, gradtx.states.TraceState))
        # In the velocity form the stage accumulates -a g, the negative velocity; in the recipe it accumulates g.
        step = trace if form == "velocity" else -RATE * trace
        np.testing.assert_allclose(phi, point, rtol=0, atol=1e-12)
        np.testing.assert_allclose(step, -v, rtol=0, atol=1e-12)
        np.testing.assert_allclose(phi - R * step, theta, rtol=0, atol=1e-12)
        updates, state = tx.update(gradient(phi), state, phi)
        phi = gradtx.apply_updates(phi, updates)
    assert np.linalg.norm(thetas[-1] - thetas[0]) > 1, "the iteration has not moved"


def test_the_gradient_at_the_parameters_is_another_method(x64: None):
    """Without the look-ahead the iterates differ, so the equality above says something."""
    thetas, _, _ = explicit()
    theta, v = START, np.zeros_like(START)
    for _ in range(STEPS):
        v = R * v + RATE * gradient(theta)
        theta = theta - v
    assert np.abs(theta - thetas[-1]).max() > 1e-3
