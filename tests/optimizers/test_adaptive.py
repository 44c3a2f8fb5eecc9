# SPDX-License-Identifier: Apache-2.0
"""What the formulas of the adaptive rules do not show: errors, zero gradients without any eps, float32, storage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx.numerics._safe import safe_divide

BARE = {"eps": 0.0, "eps_root": 0.0}
WITHOUT_EPS = [
    gt.adabelief(0.1, **BARE),
    gt.acprop(0.1, **BARE),
    gt.amsgrad(0.1, **BARE),
    gt.adamax(0.1, eps=0.0),
    gt.adan(0.1, **BARE),
    gt.scale_by_yogi(**BARE, initial_accumulator_value=0.0),
    gt.radam(0.1, b2=0.9, **BARE),
    gt.novograd(0.1, **BARE),
    gt.adadelta(eps=0.0),
    gt.scale_by_sm3(eps=0.0),
    gt.nadam(0.1, momentum_decay=0.004, **BARE),
]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gt.rprop(0.1, min_step_size=2.0, max_step_size=1.0), ValueError, "at most max_step_size, got 2.0 and"),
        (lambda: gt.rprop(0.1).init(jnp.ones(2, jnp.complex64)), TypeError, "complex parameters have no sign, got one"),
        (lambda: gt.rprop(0.1, eta_plus=0.9), ValueError, "eta_plus must be a number >= 1, got 0.9"),
        (lambda: gt.radam(0.1, threshold=3.9), ValueError, "threshold must be a number >= 4, got 3.9"),
        (lambda: gt.nadam(0.1, nesterov=False, momentum_decay=0.1), ValueError, "momentum_decay needs nesterov=True"),
        (lambda: gt.nadamw(0.1, nesterov=False, momentum_decay=0.1), ValueError, "^nadamw: momentum_decay needs"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make().init(jnp.ones(2))


@pytest.mark.slow
@pytest.mark.parametrize("tx", WITHOUT_EPS, ids=lambda tx: tx.factory.name)
def test_zero_gradients_move_nothing_even_without_eps(tx):
    params = {"w": jnp.ones((2, 3)), "s": jnp.ones([])}

    def moved(tx, scale):
        def step(carry, _):
            p, state = carry
            updates, state = tx.update(jax.tree.map(lambda x: x * scale, params), state, p)
            return (gt.apply_updates(p, updates), state), None

        (p, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=8)
        return sum(jnp.sum(jnp.abs(p[n] - params[n])) for n in p)

    slope, in_gradient = jax.jit(jax.grad(moved, argnums=(0, 1)))(jax.tree.map(jnp.float32, tx), 0.0)
    assert moved(tx, 0.0) == 0
    assert np.all(np.isfinite(jax.tree.leaves(slope))) and np.isfinite(in_gradient)


def test_novograd_without_decay_needs_no_parameters():
    g = jnp.asarray([3.0, 4.0])
    tx = gt.novograd(1.0, eps=0.0)
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(updates, -g / 5)
    with pytest.raises(ValueError, match="scale_by_novograd: update needs the parameters"):
        decaying = gt.novograd(1.0, weight_decay=0.1)
        decaying.update(g, decaying.init(g))


def test_moments_are_stored_as_asked_for():
    p = jnp.ones(3)
    assert gt.scale_by_amsgrad(mu_dtype=jnp.bfloat16).init(p).mu.dtype == jnp.bfloat16
    assert gt.scale_by_novograd(mu_dtype=jnp.bfloat16).init(p).mu.dtype == jnp.bfloat16
    for tx in (gt.nadam(0.1, mu_dtype="bfloat16", nu_dtype="float16", momentum_decay=m) for m in (None, 0.1)):
        assert (tx.init(p)[0].mu.dtype, tx.init(p)[0].nu.dtype) == (jnp.bfloat16, jnp.float16)


@pytest.mark.parametrize("b2", [0.9, 0.999, 0.9999])
def test_radam_in_float32_is_radam(b2):
    """2 / (1 - b2) - 1 and what is subtracted from it agree in most of their digits at the first steps."""
    gradients = np.random.default_rng(0).normal(size=(50, 7))
    found = {}
    for dtype in (jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            tx = gt.scale_by_radam(b2=b2)
            state = tx.init(jnp.zeros(7, dtype))
            found[dtype] = []
            for g in gradients:
                u, state = tx.update(jnp.asarray(g, dtype), state)
                found[dtype].append(np.asarray(u, np.float64))
    np.testing.assert_allclose(found[jnp.float32], found[jnp.float64], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [20_000_000, 2**31 - 2])
def test_radam_after_many_steps_is_adam(count):
    """The length of the average has its limit, in float32 too, where t times a number near 1 has no digits left."""
    g, slots = jnp.asarray([0.3, -2.0]), {"mu": jnp.asarray([0.1, 0.2]), "nu": jnp.asarray([0.5, 1.0])}
    updates = []
    for tx in (gt.scale_by_radam(), gt.scale_by_adam()):
        state = tx.init(g)._replace(count=jnp.int32(count), **slots)
        updates.append(tx.update(g, state)[0])
    np.testing.assert_allclose(*updates, rtol=1e-6)


def test_sm3_remembers_a_vector_for_each_axis():
    state = gt.scale_by_sm3().init({"matrix": jnp.ones((4, 3)), "scalar": jnp.ones([]), "empty": jnp.ones((0, 2))})
    shapes = jax.tree.map(jnp.shape, state.mu)
    assert shapes == {"matrix": [(4,), (3,)], "scalar": [()], "empty": [(0,), (2,)]}


def test_safe_divide():
    x, y = jnp.asarray([1.0, 0.0, 3.0]), jnp.asarray([2.0, 0.0, 0.0])
    np.testing.assert_array_equal(safe_divide(x, y), [0.5, 0.0, 0.0])
    slopes = jax.grad(lambda x, y: jnp.sum(safe_divide(x, y)), argnums=(0, 1))(x, y)
    np.testing.assert_array_equal(slopes, [[0.5, 0.0, 0.0], [-0.25, 0.0, 0.0]])
