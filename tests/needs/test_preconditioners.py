# SPDX-License-Identifier: Apache-2.0
"""What methods of second order are built of: any preconditioner, with the step sizes of any first-order optimizer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx

BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
HESSIAN = jnp.asarray(BASIS @ np.diag(10.0 ** np.linspace(-2, 2, 6)) @ BASIS.T, jnp.float32)


def loss(p):
    return 0.5 * p["w"] @ HESSIAN @ p["w"]


class PreconditionerState(NamedTuple):
    count: jax.Array
    factor: dict


@gradtx.transformation
def full_matrix_adagrad(eps: gradtx.typing.NonNegative = 1e-6):
    """A preconditioner in ten lines: u = (Σ g gᵀ + eps)^(-1/2) g."""

    def update(g, s, p, t):
        s = s + jnp.outer(g, g)
        values, vectors = jnp.linalg.eigh(s)
        return vectors @ ((vectors.T @ g) / jnp.sqrt(jnp.maximum(values, 0) + eps)), s

    return gradtx.per_parameter(lambda p: jnp.zeros((p.size, p.size), p.dtype), update, PreconditionerState)


def final_loss(tx, steps=200):
    params = {"w": jnp.ones(6)}

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (gradtx.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    return float(loss(params))


def test_optax_has_neither_grafting_nor_a_preconditioner_to_graft():
    names = {name.lower() for name in (*dir(optax), *dir(optax.contrib))}
    assert not names & {"graft", "soap", "shampoo", "kron", "psgd"}


def test_a_preconditioner_takes_the_step_sizes_of_adam():
    rate = gradtx.cosine_decay_schedule(0.3, 200)
    grafted = gradtx.chain(gradtx.graft(full_matrix_adagrad(), gradtx.scale_by_adam()), gradtx.scale_by_lr(rate))
    assert final_loss(grafted) < 0.1 * final_loss(gradtx.adam(rate))


def test_the_steps_are_as_long_as_those_of_the_optimizer_it_is_grafted_onto():
    adam = gradtx.scale_by_adam()
    grafted = gradtx.graft(full_matrix_adagrad(), adam)
    params = {"w": jnp.ones(6)}
    grads = jax.grad(loss)(params)
    u, _ = grafted.update(grads, grafted.init(params), params)
    m, _ = adam.update(grads, adam.init(params), params)
    np.testing.assert_allclose(jnp.linalg.norm(u["w"]), jnp.linalg.norm(m["w"]), rtol=1e-6)
