# SPDX-License-Identifier: Apache-2.0
"""Where optax 0.2.8 differs from the papers of LARS, Polyak's step, Optimistic Adam and Adafactor, and gradtx does not.

Each formula is a function of (p, g, s, t) that returns the update, s being a dictionary that lives from step to step.
The state has optax's layout all the same.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")

RNG = np.random.default_rng(5)
START = RNG.normal(size=(4, 3))
GRADIENTS = RNG.normal(size=(20, 4, 3))
VALUES = np.linspace(9.0, 4.0, 20)


def run(tx, **extra):
    p, found = jnp.asarray(START), []
    state = tx.init(p)
    for i, g in enumerate(GRADIENTS):
        update, state = tx.update(jnp.asarray(g), state, p, **{n: x[i] for n, x in extra.items()})
        p = p + update
        found.append(np.asarray(update))
    return np.stack(found)


def run_formula(formula):
    p, s, found = START, {}, []
    for t, g in enumerate(GRADIENTS, 1):
        found.append(formula(p, g, s, t))
        p = p + found[-1]
    return np.stack(found)


def layout(state):
    return [(jax.tree_util.keystr(k), x.shape, x.dtype) for k, x in jax.tree_util.tree_leaves_with_path(state)]


def compare(make, ours, theirs, rtol=1e-10, **extra):
    """gradtx follows one formula, optax another, they are not the same, and the state is."""
    ours, theirs = run_formula(ours), run_formula(theirs)
    np.testing.assert_allclose(run(make(gt), **extra), ours, rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(run(make(optax), **extra), theirs, rtol=rtol, atol=1e-12)
    assert np.nanmax(np.abs(ours - theirs)) > 1e-3
    assert layout(make(gt).init(jnp.asarray(START))) == layout(make(optax).init(jnp.asarray(START)))


def norm(x):
    return np.sqrt(np.sum(x**2))


def lars(rate, decay, coefficient, eps, r, separate):
    def update(p, g, s, t):
        size = norm(g) + decay * norm(p) if separate else norm(g + decay * p)
        s["v"] = r * s.get("v", 0.0) + rate * coefficient * norm(p) / (size + eps) * (g + decay * p)
        return -s["v"]

    return update


def test_lars_divides_by_the_norms_of_gradient_and_decay(x64):
    """Equation 6 has ‖∇L‖ + β ‖w‖ below the line, optax the norm of the sum, ‖∇L + β w‖. Without decay they agree."""
    settings = (0.1, 0.5, 0.3, 0.05, 0.6)

    def make(lib):
        return lib.lars(0.1, weight_decay=0.5, trust_coefficient=0.3, eps=0.05, momentum=0.6)

    compare(make, lars(*settings, separate=True), lars(*settings, separate=False))


def polyak(scaling, f_min, limit, eps, before):
    """`before` is the factor of the gradients whose norm is taken."""

    def update(p, g, s, t):
        size = np.sum((before * g) ** 2)
        return -scaling * min((VALUES[t - 1] - f_min) / (size + eps), limit) * g

    return update


@pytest.mark.parametrize("limit", [0.3, 100.0])
def test_the_scaling_of_polyak_sgd_is_a_factor_of_the_step(x64, limit):
    """Both libraries document scaling * min((f - f*) / (‖∇f‖² + eps), max). optax takes the norm of scaling * ∇f.

    Where the maximum is not reached, a scaling of 1/2 then doubles the steps.
    """

    def make(lib):
        return lib.polyak_sgd(limit, 0.5, 1.0, 0.1)

    compare(make, polyak(0.5, 1.0, limit, 0.1, before=1.0), polyak(0.5, 1.0, limit, 0.1, before=0.5), value=VALUES)


def optimistic(alpha, beta, b1, b2, eps, from_zero):
    def update(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        d = s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)
        before = s.get("d", 0.0 if from_zero else d)
        s["d"] = d
        return -(alpha + beta) * d + beta * before

    return update


@pytest.mark.filterwarnings("ignore:.*optimistic_adam_v2:DeprecationWarning")
def test_optimistic_adam_starts_with_the_step_of_its_paper(x64):
    """Algorithm 1 starts from moments of zero, so that its first step is -2 η d. optax makes the first step -η d."""

    def make(lib):
        return lib.optimistic_adam(0.1, 0.07, 0.8, 0.9, 1e-3, nesterov=False)

    paper, other = (optimistic(0.1, 0.07, 0.8, 0.9, 1e-3, from_zero) for from_zero in (True, False))
    compare(make, paper, other)
    as_optax = gt.optimistic_adam(0.1, 0.07, 0.8, 0.9, 1e-3, nesterov=False, from_zero=False)
    np.testing.assert_allclose(run(as_optax), run_formula(other), rtol=1e-10)


def test_optimistic_adam_v2_starts_with_the_step_of_its_paper(x64):
    def make(lib):
        return lib.optimistic_adam_v2(0.5, alpha=0.2, beta=0.14, b1=0.8, b2=0.9, eps=1e-3, nesterov=False)

    compare(make, *(optimistic(0.1, 0.07, 0.8, 0.9, 1e-3, from_zero) for from_zero in (True, False)))


def test_factored_rms_survives_the_steps_before_its_offset(x64):
    """optax has NaN for t <= offset, where 1 - (t - offset)^-0.8 has no value; gradtx starts anew until then."""

    def rms(p, g, s, t):
        b = 1 - max(t - 5, 1) ** -0.8
        s["v"] = b * s.get("v", 0.0) + (1 - b) * g**2
        return g / np.sqrt(s["v"])

    ours, theirs = (run(lib.scale_by_factored_rms(step_offset=5)) for lib in (gt, optax))
    np.testing.assert_allclose(ours, run_formula(rms), rtol=1e-10)
    assert np.isnan(theirs).all()
