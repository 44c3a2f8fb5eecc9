# SPDX-License-Identifier: Apache-2.0
"""Where optax 0.2.8 differs from the papers of the adaptive rules: what it does, and what gradtx does instead.

Each formula here is a function of (g, s, t) that returns the direction, s being a dictionary that lives from step to
step. The state has optax's layout all the same.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")

GRADIENTS = np.random.default_rng(5).normal(size=(20, 4, 3))


def run(tx, gradients=GRADIENTS, dtype=np.float64):
    params = jnp.ones(gradients.shape[1:], dtype)
    state, found = tx.init(params), []
    for g in gradients:
        updates, state = tx.update(jnp.asarray(g, dtype), state, params)
        found.append(np.asarray(updates, np.float64))
    return np.stack(found)


def run_formula(formula, gradients=GRADIENTS):
    s = {}
    return np.stack([formula(g, s, t) for t, g in enumerate(gradients, 1)])


def layout(state):
    return [(jax.tree_util.keystr(k), x.shape, x.dtype) for k, x in jax.tree_util.tree_leaves_with_path(state)]


def assert_equal(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def differ(a, b):
    return bool(np.max(np.abs(a - b)) > 0.01)


def adan(b1, b2, b3, eps, of_difference):
    def direction(g, s, t):
        d = g - s.get("g", g)
        s["g"] = g
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * d
        s["n"] = b3 * s.get("n", 0.0) + (1 - b3) * (g + of_difference * d) ** 2
        m, v, n = s["m"] / (1 - b1**t), s["v"] / (1 - b2**t), s["n"] / (1 - b3**t)
        return (m + of_difference * v) / (np.sqrt(n) + eps)

    return direction


def test_adan_weighs_the_differences_by_the_decay_of_their_average(x64):
    """Algorithm 1 has (1 - β2) twice, and its averages the decay 1 - β2: that is b2, where optax has 1 - b2."""
    ours, theirs = (lib.scale_by_adan(0.9, 0.8, 0.95, 1e-3) for lib in (gt, optax))
    assert_equal(run(theirs), run_formula(adan(0.9, 0.8, 0.95, 1e-3, of_difference=0.2)))
    assert_equal(run(ours), run_formula(adan(0.9, 0.8, 0.95, 1e-3, of_difference=0.8)))
    assert differ(run(ours), run(theirs))
    assert layout(ours.init(jnp.ones(3))) == layout(theirs.init(jnp.ones(3)))


def acprop(b1, b2, eps, eps_root, of_new_mean):
    def direction(g, s, t):
        u = g / ((np.sqrt(s["s"] / (1 - b2 ** (t - 1))) if t > 1 else 1.0) + eps)
        old = s.get("m", 0.0)
        s["m"] = b1 * old + (1 - b1) * g
        s["s"] = b2 * s.get("s", 0.0) + (1 - b2) * (g - (s["m"] if of_new_mean else old)) ** 2 + eps_root
        return u

    return direction


def test_acprop_centers_by_the_new_mean(x64):
    """Algorithm 2 has (g - m)² with the m of this step, as AdaBelief; optax has the m of the step before."""
    ours, theirs = gt.scale_by_acprop(0.8, 0.9, 1e-3, 1e-4), optax.contrib.scale_by_acprop(0.8, 0.9, 1e-3, 1e-4)
    assert_equal(run(theirs), run_formula(acprop(0.8, 0.9, 1e-3, 1e-4, of_new_mean=False)))
    assert_equal(run(ours), run_formula(acprop(0.8, 0.9, 1e-3, 1e-4, of_new_mean=True)))
    assert differ(run(ours), run(theirs))
    assert layout(gt.acprop(0.1).init(jnp.ones(3))) == layout(optax.contrib.acprop(0.1).init(jnp.ones(3)))


def yogi(b1, b2, eps, initial, initial_mean):
    def direction(g, s, t):
        s["m"] = b1 * s.get("m", initial_mean) + (1 - b1) * g
        v = s.get("v", initial)
        s["v"] = v - (1 - b2) * np.sign(v - g**2) * g**2
        return s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)

    return direction


def test_yogi_starts_its_mean_at_zero(x64):
    """optax starts both moments at initial_accumulator_value, so that it moves where there is no gradient."""
    ours, theirs = (lib.scale_by_yogi(0.9, 0.99, 1e-3, 0.0, 0.1) for lib in (gt, optax))
    assert_equal(run(theirs), run_formula(yogi(0.9, 0.99, 1e-3, 0.1, initial_mean=0.1)))
    assert_equal(run(ours), run_formula(yogi(0.9, 0.99, 1e-3, 0.1, initial_mean=0.0)))
    assert differ(run(ours), run(theirs))
    still = np.zeros((3, 2))
    assert np.all(run(gt.yogi(0.1), still) == 0) and np.all(run(optax.yogi(0.1), still) < -1e-6)
    assert layout(gt.yogi(0.1).init(jnp.ones(3))) == layout(optax.yogi(0.1).init(jnp.ones(3)))


def rprop(rate, minus, plus, low, high):
    def direction(g, s, t):
        product = g * s.get("g", 0 * g)
        s["size"] = s.get("size", rate) * np.where(product > 0, plus, np.where(product < 0, minus, 1))
        s["size"] = np.clip(s["size"], low, high)
        s["g"] = np.where(product < 0, 0, g)
        return np.sign(s["g"]) * s["size"]

    return direction


def one_step_late(direction):
    def late(g, s, t):
        last, turned = s.get("u", 0 * g), g * s.get("g", 0 * g) < 0
        s["u"] = direction(g, s, t)
        return np.where(turned, 0, last)

    return late


def test_rprop_moves_by_the_size_of_this_step(x64):
    """Rprop steps by sign(g) size at each step; optax by that of the step before, so not at all at the first."""
    arguments = 0.1, 0.5, 1.2, 1e-2, 0.3
    ours, theirs = gt.scale_by_rprop(*arguments), optax.scale_by_rprop(*arguments)
    assert_equal(run(theirs), run_formula(one_step_late(rprop(*arguments))))
    assert_equal(run(ours), run_formula(rprop(*arguments)))
    assert np.all(run(theirs)[0] == 0) and np.all(np.abs(run(ours)[0]) == 0.1)
    assert layout(ours.init(jnp.ones(3))) == layout(theirs.init(jnp.ones(3)))


def adadelta(rho, eps):
    def direction(g, s, t):
        s["g"] = rho * s.get("g", 0.0) + (1 - rho) * g**2
        u = np.sqrt(s.get("x", 0.0) + eps) / np.sqrt(s["g"] + eps) * g
        s["x"] = rho * s.get("x", 0.0) + (1 - rho) * u**2
        return u

    return direction


def test_adadelta_descends_without_a_learning_rate(x64):
    """The paper's step is -u; optax.adadelta(), whose default learning rate is None, returns +u and climbs."""
    assert_equal(run(optax.adadelta()), run_formula(adadelta(0.9, 1e-6)))
    assert_equal(run(gt.adadelta()), -run_formula(adadelta(0.9, 1e-6)))
    assert_equal(run(gt.adadelta(1.0)), run(optax.adadelta(1.0)))
    assert layout(gt.adadelta().init(jnp.ones(3))) == layout(optax.adadelta().init(jnp.ones(3)))


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 2), (2, 2, 3, 2)])
@pytest.mark.parametrize("arguments", [(), (0.8, 0.9, 1e-3)])
def test_sm3_is_optax_s_where_there_are_axes(shape, arguments, x64):
    gradients = np.random.default_rng(6).normal(size=(20, *shape))
    ours, theirs = gt.scale_by_sm3(*arguments), optax.scale_by_sm3(*arguments)
    assert_equal(run(ours, gradients), run(theirs, gradients))
    assert layout(ours.init(jnp.ones(shape))) == layout(theirs.init(jnp.ones(shape)))
    assert_equal(run(gt.sm3(0.1, 0.5), gradients), run(optax.sm3(0.1, 0.5), gradients))


def test_sm3_takes_scalars(x64):
    """A scalar is its own only slice, so SM3 is AdaGrad with momentum; optax has no accumulator for it and fails."""
    gradients = np.random.default_rng(7).normal(size=20)
    with pytest.raises(IndexError):
        run(optax.scale_by_sm3(), gradients)

    def direction(g, s, t):
        s["s"] = s.get("s", 0.0) + g**2
        s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g / np.sqrt(s["s"] + 1e-8)
        return s["m"]

    assert_equal(run(gt.scale_by_sm3(), gradients), run_formula(direction, gradients))


def radam(b1, b2, eps):
    def direction(g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        limit = 2 / (1 - b2) - 1
        length = limit - 2 * t * b2**t / (1 - b2**t)
        if length < 5:
            return s["m"] / (1 - b1**t)
        r = np.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))
        return r * s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)

    return direction


def test_radam_knows_its_length_in_float32():
    """Both have the paper's formula; in float32 optax rectifies too early by it with b2=0.9999, we do not."""
    expected = run_formula(radam(0.9, 0.9999, 1e-8))
    found = {lib: run(lib.scale_by_radam(b2=0.9999), dtype=np.float32) for lib in (gt, optax)}
    np.testing.assert_allclose(found[gt], expected, rtol=2e-5, atol=2e-6)
    assert differ(found[optax][:5], expected[:5])
