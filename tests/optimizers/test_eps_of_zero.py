# SPDX-License-Identifier: Apache-2.0
"""eps = 0: a zero gradient has the quotient 0/0, which is 0, in every rule with a denominator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from support.registry import FACTORIES

NAMES = ("eps", "eps_root", "epsilon", "eps_error")
ASKS_FOR_MORE = {"scale_by_dowg", "scale_by_polyak"}  # eps is the first step; a value
OF_MATRICES = {
    "scale_by_muon",
    "scale_by_adamuon",
    "scale_by_dion",
    "scale_by_dion2",
    "scale_by_namo",
    "scale_by_normuon",
}
RULES = sorted(
    name
    for name, factory in FACTORIES.items()
    if name.startswith("scale_by_") and set(NAMES) & set(factory.signature.parameters)
)
RULES = [name for name in RULES if name not in ASKS_FOR_MORE | OF_MATRICES]


def steps_of(tx, **extra):
    """Two steps without a gradient, and one where one of two elements has none."""
    p = jnp.asarray([1.0, 2.0])
    state = tx.init(p)
    with jax.disable_jit():
        for g in ([0.0, 0.0], [0.0, 0.0], [0.0, 3.0]):
            u, state = tx.update(jnp.asarray(g), state, p, **extra)
            yield np.asarray(u), state


def zeros(name, zero):
    return {k: zero for k in NAMES if k in FACTORIES[name].signature.parameters}


@pytest.mark.parametrize("name", RULES)
def test_a_zero_gradient_changes_nothing(name):
    rate = {"learning_rate": 0.1} if name in ("scale_by_adamod", "scale_by_madgrad") else {}
    extra = {"obj_fn": lambda p: jnp.sum(p * p)} if name == "scale_by_sophia" else {}
    for i, (u, state) in enumerate(steps_of(getattr(gradtx, name)(**rate, **zeros(name, 0.0)), **extra)):
        assert np.all(np.isfinite(u)) and (i == 2 or not np.any(u))
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating))


@pytest.mark.parametrize("name", ["adam", "rmsprop", "nadam", "laprop", "lamb"])
def test_a_float16_that_is_zero(name):
    """1e-8 is 0 in float16."""
    tx = getattr(gradtx, name)(0.1, eps=jnp.asarray(1e-8, jnp.float16))
    for i, (u, _) in enumerate(steps_of(tx)):
        assert np.all(np.isfinite(u)) and (i == 2 or not np.any(u))
    assert u[1] != 0


def test_adam_without_eps_is_its_formula():
    *_, (u, _) = steps_of(gradtx.scale_by_adam(eps=0.0))
    mu, nu = 0.1 * 3.0 / (1 - 0.9**3), 0.001 * 9.0 / (1 - 0.999**3)
    np.testing.assert_allclose(u, [0.0, mu / np.sqrt(nu)], rtol=1e-5)


def test_sophia_without_curvature_takes_the_sign():
    tx = gradtx.scale_by_sophia(eps=0.0, clip_threshold=1.0)
    p = jnp.asarray([1.0, 2.0])
    with jax.disable_jit():
        u, _ = tx.update(jnp.asarray([0.0, -3.0]), tx.init(p), p, obj_fn=lambda p: jnp.sum(p))
    np.testing.assert_array_equal(u, [0.0, -1.0])
