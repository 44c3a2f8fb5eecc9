# SPDX-License-Identifier: Apache-2.0
"""Shampoo's family beyond its formulas: what is refused, what fails, what runs when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx.numerics._tensor_blocks import merged_shape, tensor_blocks
from gradtx.numerics._triangular import balanced

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "b": jnp.linspace(0.5, 1.0, 3)}
GRADIENTS = jax.tree.map(jnp.cos, PARAMS)
RULES = {
    "soap": gt.scale_by_soap(precondition_frequency=2),
    "kl_soap": gt.scale_by_kl_soap(precondition_frequency=2),
    "kl_shampoo": gt.scale_by_kl_shampoo(precondition_frequency=2),
    "shampoo": gt.scale_by_shampoo(precondition_frequency=2, graft="adam"),
    "splus": gt.scale_by_splus(precondition_frequency=2),
    "psgd_kron": gt.scale_by_psgd_kron(),
}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gt.scale_by_shampoo(graft="lion"),
            "graft must be one of 'sgd', 'adam', 'rmsprop', 'adagrad', a stage",
        ),
        (lambda: gt.scale_by_shampoo(exponent=-0.5), "exponent must be None, a number >= 0, or a mapping"),
        (lambda: gt.scale_by_shampoo(exponent=(0.5, 0.5)), "exponent must be None, a number >= 0, or a mapping"),
        (lambda: gt.scale_by_shampoo(exponent={2: (0.5, 0.5, 0.5)}), "exponent must have 2 numbers for 2 axes"),
        (lambda: gt.soap(0.1, precondition_frequency=0), "precondition_frequency must be a whole number >= 1"),
        (lambda: gt.decay_weights(0.1, "coupled", of_new=True), "of_new=True decays what an update leads to"),
    ],
)
def test_what_has_no_meaning_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def outside_conditions(jaxpr):
    """The names of the primitives of a program that run at every step."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        if equation.primitive.name != "cond":
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                yield from outside_conditions(getattr(inner, "jaxpr", inner)) if hasattr(inner, "eqns") else ()


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_decompositions_are_under_a_condition(name):
    tx = RULES[name]
    state = jax.eval_shape(tx.init, PARAMS)
    program = jax.make_jaxpr(tx.update)(GRADIENTS, state, PARAMS)
    work = {"eigh", "qr", "householder_product", "geqrf", "triangular_solve"}
    assert work & set(str(program).replace("[", " ").split()), "nothing to look for"
    assert not work & set(outside_conditions(program.jaxpr))


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_matrices_stay_finite_after_an_infinite_gradient(name):
    tx = RULES[name]
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for g in (GRADIENTS, jax.tree.map(lambda g: g * jnp.inf, GRADIENTS), GRADIENTS, GRADIENTS):
        _, state = update(g, state, PARAMS)
    for field in {"factors", "bases", "roots", "eigenvalues"} & set(state._fields):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(getattr(state, field))), field


@pytest.mark.slow
def test_a_graft_by_a_stage_has_its_norms():
    tx, stage = gt.scale_by_shampoo(graft=gt.scale_by_adam()), gt.scale_by_adam()
    u, _ = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
    like, _ = stage.update(GRADIENTS, stage.init(PARAMS), PARAMS)
    assert not np.allclose(u["w"], like["w"], atol=0.1)
    for n in PARAMS:
        assert np.linalg.norm(u[n]) == pytest.approx(np.linalg.norm(like[n]), rel=1e-5)


def test_balancing_keeps_the_product():
    triangular, diagonal = jnp.triu(jnp.arange(1.0, 10.0).reshape(3, 3)), jnp.asarray([0.1, 0.2])
    first, second = balanced((triangular, diagonal))
    np.testing.assert_allclose(jnp.max(jnp.abs(first)), jnp.max(jnp.abs(second)), rtol=1e-6)
    np.testing.assert_allclose(jnp.kron(first, second[None]), jnp.kron(triangular, diagonal[None]), rtol=1e-6)


def test_blocks_cover_a_tensor_once():
    x = np.arange(5 * 7 * 2.0).reshape(5, 7, 2)
    parts = tensor_blocks(x.shape, 3)
    blocks = [part.taken_from(x) for part in parts]
    for part, found in zip(parts, blocks, strict=True):
        assert found.shape == (part.number, *part.shape) and max(part.shape) <= 3
    assert sorted(np.concatenate([np.ravel(found) for found in blocks])) == sorted(x.ravel())
    assert (blocks[0][1] == x[:3, 3:6]).all()


@jax.jit
def put_back(x):
    found = jnp.zeros_like(x)
    for part in tensor_blocks(x.shape, 3):
        found = part.put_into(found, part.taken_from(x))
    return found


def test_blocks_go_back_to_their_places():
    x = jnp.arange(5 * 7.0).reshape(5, 7)
    np.testing.assert_array_equal(put_back(x), x)


@pytest.mark.parametrize(
    ("shape", "size", "merged"),
    [
        ((), 4, (1,)),
        ((1, 1), 4, (1,)),
        ((2, 1, 3, 2), 6, (2, 6)),
        ((3, 2, 2, 2), 4, (3, 2, 4)),
        ((5, 2), 4, (5, 2)),
        ((2, 2, 2), 8, (8,)),
    ],
)
def test_merged_shapes(shape, size, merged):
    assert merged_shape(shape, size) == merged


def test_decay_of_new_parameters_begins_later():
    tx = gt.chain(gt.sgd(0.5), gt.decay_weights(0.1, "decoupled", learning_rate=0.5, of_new=True, begin=1))
    p, state = jnp.asarray([1.0, -2.0]), tx.init(jnp.zeros(2))
    want = np.asarray(p)
    for t in range(3):
        u, state = tx.update(jnp.ones(2), state, p)
        p = gt.apply_updates(p, u)
        want = want - 0.5
        want = want - (0.05 * want if t else 0)
        np.testing.assert_allclose(p, want, rtol=1e-6)
