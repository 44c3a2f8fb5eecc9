# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt
from support import problems

PARAMS = {"b": jnp.asarray([1.0, -2.0, 0.5]), "w": jnp.asarray([[1.0, 3.0], [0.2, -0.1]])}


def coupled(params):
    x = jnp.concatenate([jnp.ravel(params[n]) for n in sorted(params)])
    return jnp.sum(x**4) / 12 + jnp.prod(x[:3]) + jnp.sum(x) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.usefixtures("standard_promotion")
def test_hutchinson_has_the_numbers_and_state_of_optax(x64):
    with jax.enable_x64(x64):
        params = jax.tree.map(lambda p: jnp.asarray(p, float), PARAMS)
        for key in (None, jax.random.PRNGKey(5)):
            ours, theirs = (lib.hutchinson_estimator_diag_hessian(key) for lib in (gt.curvature, optax.contrib))
            state, their_state = ours.init(params), theirs.init(params)
            for _ in range(3):
                estimate, state = ours.update(params, state, params, obj_fn=coupled)
                expected, their_state = theirs.update(params, their_state, params, obj_fn=coupled)
                for n in params:
                    np.testing.assert_allclose(estimate[n], expected[n], rtol=1e-12 if x64 else 1e-5)
                np.testing.assert_array_equal(state.key, their_state.key)
                assert state.key.dtype == their_state.key.dtype


@pytest.mark.slow
@pytest.mark.parametrize("probes", ["rademacher", "normal"])
def test_hutchinson_is_unbiased(probes):
    params = PARAMS["b"]
    tx = gt.curvature.hutchinson_estimator_diag_hessian(probes=probes)

    def one(state, _):
        estimate, state = tx.update(params, state, params, obj_fn=lambda p: coupled({"b": p}))
        return state, estimate

    _, estimates = jax.lax.scan(one, tx.init(params), None, length=4000)
    expected = np.diagonal(jax.hessian(lambda p: coupled({"b": p}))(params))
    np.testing.assert_allclose(estimates.mean(0), expected, atol=4 * float(estimates.std(0).max()) / 4000**0.5)


@pytest.mark.slow
def test_bartlett_is_the_gauss_newton_diagonal():
    """Of a logistic model with one parameter for each logit, where it is the mean of q (1 - q) over the examples."""
    logits = jnp.asarray([[0.3, -1.0, 0.5, 2.0]])
    tx = gt.curvature.gauss_newton_bartlett(1.0)

    def loss(x, label):
        return -jax.nn.log_softmax(x)[label]

    def one(key):
        label = jax.random.categorical(key, logits[0])
        ghat = jax.grad(loss)(logits[0], label)
        return tx.update(ghat, gt.states.EmptyState(), logits[0], sampled_grad=ghat)[0]

    found = jax.vmap(one)(jax.random.split(jax.random.key(0), 20_000)).mean(0)
    q = jax.nn.softmax(logits[0])
    np.testing.assert_allclose(found, q * (1 - q), atol=0.01)


def test_parameters_without_gradients_are_constants():
    params = {**PARAMS, "steps": jnp.asarray(3), "none": None}
    g = {"b": params["b"], "w": None, "steps": None, "none": None}
    tx = gt.curvature.hutchinson_estimator_diag_hessian()
    estimate, _ = tx.update(
        g, tx.init(params), params, obj_fn=lambda p: jnp.sum(p["b"] ** 2) * p["steps"].astype(float)
    )
    np.testing.assert_allclose(estimate["b"], [6.0, 6.0, 6.0])
    assert estimate["w"] is estimate["steps"] is estimate["none"] is None


@pytest.mark.slow
def test_sophia_in_a_compiled_loop():
    """The estimate is due at steps 1, 4 and 7, and its function is not even called in the program of the others."""
    params = jax.tree.map(jnp.asarray, problems.start())
    tx = gt.sophia(0.02, gamma=1.0, update_interval=3)

    def body(carry, _):
        params, state = carry
        g = jax.grad(coupled)(params)
        updates, state = tx.update(g, state, params, obj_fn=coupled)
        return (gt.apply_updates(params, updates), state), state[0].hessian_fn_state.key

    (looped, _), keys = jax.lax.scan(body, (params, tx.init(params)), None, length=7)
    changed = jnp.any(keys[1:] != keys[:-1], axis=1)
    np.testing.assert_array_equal(changed, [False, False, True, False, False, True])
    carry = params, tx.init(params)
    for _ in range(7):
        carry, _ = body(carry, None)
    for n in params:
        np.testing.assert_allclose(looped[n], carry[0][n], rtol=1e-4, atol=1e-5)


def test_sophia_prints_its_win_rate(capfd):
    params = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    curvature = jnp.asarray([1e3, 1e3, 1e3, 1e-3])
    tx = gt.sophia(0.1, gamma=1.0, verbose=True, print_win_rate_every_n_steps=2)
    state = tx.init(params)
    for _ in range(4):
        _, state = tx.update(params, state, params, obj_fn=lambda p: jnp.sum(curvature * p**2) / 2)
    jax.effects_barrier()
    assert capfd.readouterr().out.splitlines() == ["Sophia's win rate (the part not clipped): 0.75"] * 2


def test_bad_input():
    tx = gt.curvature.hutchinson_estimator_diag_hessian()
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match="hutchinson_estimator_diag_hessian: update needs obj_fn"):
        gt.sophia(0.1).update(PARAMS, gt.sophia(0.1).init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match="update needs the parameters"):
        tx.update(PARAMS, state, obj_fn=coupled)
    with pytest.raises(ValueError, match="gauss_newton_bartlett: update needs sampled_grad"):
        gt.curvature.gauss_newton_bartlett(8.0).update(PARAMS, gt.states.EmptyState(), PARAMS)
    with pytest.raises(ValueError, match=r"gauss_newton_bartlett: the trees do not match: .*\['w'\]"):
        gt.curvature.gauss_newton_bartlett(8.0).update(
            PARAMS, gt.states.EmptyState(), PARAMS, sampled_grad={"b": PARAMS["b"]}
        )
    with pytest.raises(TypeError, match="random_seed must be a key of jax.random or a whole number"):
        gt.curvature.hutchinson_estimator_diag_hessian("seed")
    with pytest.raises(ValueError, match="probes must be one of"):
        gt.curvature.hutchinson_estimator_diag_hessian(probes="uniform")
    with pytest.raises(TypeError, match="scale_by_sophia: hessian_diagonal_fn must be a transformation"):
        gt.sophia(0.1, hessian_diagonal_fn=coupled)
    with pytest.raises(TypeError, match="scale_by_sophia: state must be the SophiaState"):
        gt.scale_by_sophia().update(PARAMS, PARAMS, PARAMS, obj_fn=coupled)
