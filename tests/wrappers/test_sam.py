# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt
from gradtx.testing import check_contract

PARAMS = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}


def ascent(rho=0.1):
    return gt.chain(gt.normalize(), gt.sgd(rho))


def loss(params):
    return jnp.sum(params["a"] ** 4) / 4 + params["b"] ** 2 * params["a"][0]


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("reset_state", [True, False])
@pytest.mark.parametrize("period", [1, 2, 4])
def test_opaque_mode_is_optax_s(period, reset_state):
    climb = optax.chain(optax.normalize_by_update_norm(), optax.adam(0.1))
    ours, theirs = (
        f(optax.adamw(0.1, weight_decay=0.3), climb, period, reset_state, True) for f in (gt.sam, optax.contrib.sam)
    )

    @jax.jit
    def step(state, their_state, params):
        g = jax.grad(loss)(params)
        extra = {"grad_fn": lambda params, i: jax.grad(loss)(params)}
        return ours.update(g, state, params, **extra), theirs.update(g, their_state, params, **extra)

    params, state, their_state = PARAMS, ours.init(PARAMS), theirs.init(PARAMS)
    for _ in range(5):
        (updates, state), (their_updates, their_state) = step(state, their_state, params)
        for n in params:
            np.testing.assert_allclose(updates[n], their_updates[n], rtol=1e-5)
        params = gt.apply_updates(params, updates)
    assert [x.shape for x in jax.tree.leaves(state)] == [x.shape for x in jax.tree.leaves(their_state)]


def test_a_round_in_one_call_or_in_several():
    several, one = gt.sam(gt.sgd(0.1), ascent(), 3), gt.sam(gt.sgd(0.1), ascent(), 3, opaque_mode=True)
    params, state = PARAMS, several.init(PARAMS)
    for _ in range(6):
        updates, state = several.update(jax.grad(loss)(params), state, params)
        params = gt.apply_updates(params, updates)
    whole, whole_state = PARAMS, one.init(PARAMS)
    for _ in range(2):
        updates, whole_state = one.update(
            jax.grad(loss)(whole), whole_state, whole, grad_fn=lambda params, i: jax.grad(loss)(params)
        )
        whole = gt.apply_updates(whole, updates)
    for n in params:
        np.testing.assert_allclose(params[n], whole[n], rtol=1e-6)


def test_the_round_is_counted_and_its_number_given():
    seen = []

    def grad_fn(params, i):
        seen.append(i)
        return jax.grad(loss)(params)

    tx = gt.sam(gt.sgd(0.1), ascent(), 4, opaque_mode=True)
    tx.update(jax.grad(loss)(PARAMS), tx.init(PARAMS), PARAMS, grad_fn=grad_fn)
    assert seen == [0, 1, 2]


def test_evaluation_is_where_the_round_began():
    """Also of what the optimizer inside answers."""
    tx = gt.sam(gt.chain(gt.sgd(0.1), gt.params_ema(0.5)), ascent())
    params, state = PARAMS, tx.init(PARAMS)
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    climbed = gt.apply_updates(params, updates)
    np.testing.assert_allclose(gt.eval_params(state, climbed)["b"], 3.0)
    plain = gt.sam(gt.sgd(0.1), ascent())
    updates, state = plain.update(jax.grad(loss)(params), plain.init(params), params)
    np.testing.assert_allclose(gt.eval_params(state, climbed)["b"], 3.0)


def test_low_precision_parameters_come_back_exactly():
    params = jnp.asarray([1.0, 1.5], jnp.bfloat16)
    tx = gt.sam(gt.sgd(0.0), ascent(0.3))
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(jnp.asarray([1.0, 0.1], jnp.bfloat16), state, params)
        params = gt.apply_updates(params, updates)
    np.testing.assert_array_equal(params, jnp.asarray([1.0, 1.5], jnp.bfloat16))


def test_bad_input():
    tx = gt.sam(gt.sgd(0.1), ascent())
    with pytest.raises(ValueError, match="sam: update needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(TypeError, match="sam: state must be the SAMState"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))
    with pytest.raises(ValueError, match="sync_period must be a whole number >= 1, got 0"):
        gt.sam(gt.sgd(0.1), ascent(), 0)
    with pytest.raises(TypeError, match="sam: adv_optimizer must be a transformation, got the factory sgd"):
        gt.sam(gt.sgd(0.1), gt.sgd)
    opaque = gt.sam(gt.sgd(0.1), ascent(), opaque_mode=True)
    with pytest.raises(ValueError, match="opaque_mode=True needs grad_fn"):
        opaque.update(PARAMS, opaque.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"the gradients of grad_fn lack|the gradients given have \['b'\]"):
        opaque.update(PARAMS, opaque.init(PARAMS), PARAMS, grad_fn=lambda params, i: {"a": params["a"]})


@pytest.mark.parametrize("opaque", [False, True])
def test_gsam_leaves_out_what_is_missing(opaque):
    """A parameter without gradients has no part in the inner products."""
    tx = gt.sam(gt.sgd(1.0), ascent(0.0), alpha=0.5, opaque_mode=opaque)
    g, h = (jnp.asarray(x) for x in ([1.0, 2.0], [2.0, 0.0]))
    params, state = PARAMS, tx.init(PARAMS)
    for x in (g,) if opaque else (g, h):
        updates, state = tx.update(
            {"a": x, "b": None}, state, params, grad_fn=lambda params, i: {"a": h, "b": jnp.ones(())}
        )
        params = gt.apply_updates(params, updates)
    # g = (1, 2) has (0, 2) orthogonal to h.
    np.testing.assert_allclose(params["a"], PARAMS["a"] - jnp.asarray([2.0, -1.0]), rtol=1e-6)
    np.testing.assert_array_equal(params["b"], PARAMS["b"])


def test_gsam_of_complex_parameters_is_that_of_their_parts():
    def descended(params, gradients):
        tx = gt.sam(gt.sgd(1.0), ascent(0.0), alpha=0.5)
        state = tx.init(params)
        for g in gradients:
            updates, state = tx.update(g, state, params)
            params = gt.apply_updates(params, updates)
        return params

    w = jnp.asarray([1.0 + 2j, -0.5j])
    gradients = [jnp.asarray([1.0 - 1j, 2.0 + 0j]), jnp.asarray([0.5 + 1j, -1.0j])]
    found = descended(w, gradients)
    expected = descended((w.real, w.imag), [(g.real, g.imag) for g in gradients])
    np.testing.assert_allclose((found.real, found.imag), expected, rtol=1e-6)


@pytest.mark.slow
def test_gsam_keeps_the_contract():
    check_contract(gt.sam(gt.adam(0.1), ascent(0.05), 2, alpha=0.2), PARAMS)


def test_gsam_averages_both_gradients_over_the_batch_axis():
    g, h = jnp.asarray([[1.0, 0.0], [1.0, 4.0]]), jnp.asarray([[2.0, 3.0], [2.0, -3.0]])  # means (1, 2) and (2, 0)

    def one(g, h):
        tx = gt.sam(gt.sgd(1.0), ascent(0.0), batch_axis_name="batch", alpha=0.5)
        params = jnp.zeros(2)
        up, state = tx.update(g, tx.init(params), params)
        down, _ = tx.update(h, state, params + up)
        return down

    np.testing.assert_allclose(jax.vmap(one, axis_name="batch")(g, h), [[-2.0, 1.0]] * 2, atol=1e-6)


def test_asam_does_not_depend_on_the_scale_of_a_parameter():
    """If w = s v, a step of v by eps is one of w by s eps: the function climbs to the same point."""
    size = gt.scale_by_param_magnitude(0.0)
    tx = gt.chain(size, gt.normalize(), size, gt.sgd(0.1))
    p, g = jnp.asarray([1.0, -2.0, 0.5]), jnp.asarray([0.3, 0.1, -1.0])
    for s in (1.0, 10.0, jnp.asarray([0.1, 3.0, 7.0])):
        updates, _ = tx.update(g / s, tx.init(p), s * p)
        np.testing.assert_allclose(updates / s, tx.update(g, tx.init(p), p)[0], rtol=1e-5)
