# SPDX-License-Identifier: Apache-2.0
"""Shampoo's family beyond its formulas: what is refused, what fails, what runs when."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx.core import _buckets as buckets
from gradtx.core._kernels import shared_kernels
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


EVERY_STEP = {
    "soap": gt.scale_by_soap(precondition_frequency=1),
    "kl_soap": gt.scale_by_kl_soap(precondition_frequency=1),
    "kl_shampoo": gt.scale_by_kl_shampoo(precondition_frequency=1),
    "shampoo": gt.scale_by_shampoo(eps=1e-3, block_size=3),
    "splus": gt.scale_by_splus(precondition_frequency=1),
}
STAGGERED = {
    "soap": gt.scale_by_soap(precondition_frequency=3, stagger=True),
    "kl_soap": gt.scale_by_kl_soap(precondition_frequency=3, stagger=True),
    "kl_shampoo": gt.scale_by_kl_shampoo(precondition_frequency=3, stagger=True),
    "shampoo": gt.scale_by_shampoo(eps=1e-3, precondition_frequency=3, start_step=1, stagger=True),
    "splus": gt.scale_by_splus(precondition_frequency=3, stagger=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("in_turn", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_decompositions_are_under_a_condition(name, in_turn, monkeypatch):
    """Also where matrices run one after the other, and where they are one batch."""
    monkeypatch.setattr(buckets, "_runs_in_turn", lambda g: in_turn)
    tx = STAGGERED.get(name, RULES[name])
    params = {**PARAMS, "v": PARAMS["w"], "x": PARAMS["w"].T}
    shared_kernels.cache_clear()
    program = jax.make_jaxpr(tx.update)(params, jax.eval_shape(tx.init, params), params)
    shared_kernels.cache_clear()
    work = {"eigh", "qr", "householder_product", "geqrf", "triangular_solve"}
    assert work & set(str(program).replace("[", " ").split()), "nothing to look for"
    assert not work & set(outside_conditions(program.jaxpr))


def run_at_every_step(program: str) -> str:
    """The parts of a compiled program that are no branch of a condition."""
    parts = dict(re.findall(r"^(?:ENTRY )?%?([\w.-]+) \(.*?\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL))
    left, found = re.findall(r"^ENTRY %?([\w.-]+)", program, re.MULTILINE), {}
    while left:
        name = left.pop()
        found[name] = parts[name]
        called = re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)", parts[name])
        left += [x for x in called if x not in found]
    return "\n".join(found.values())


@pytest.mark.slow
def test_compilers_keep_the_condition():
    tx, params = STAGGERED["splus"], {"a": PARAMS["w"], "b": PARAMS["w"]}
    program = jax.jit(tx.update).lower(params, tx.init(params), params).compile().as_text() or ""
    assert "syevd" in program and "conditional(" in run_at_every_step(program)
    assert "syevd" not in run_at_every_step(program)


def decomposed(state):
    return state.roots if "roots" in state._fields else state.bases


def same(one, other):
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_STEP)
def test_a_decomposition_that_fails_keeps_the_old_one(name):
    """However often in a row; the metric counts."""
    tx = EVERY_STEP[name]
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for _ in range(2):
        _, state = update(GRADIENTS, state, PARAMS)
    right, spoiled = state, dict(state.factors)
    spoiled["w"] = jax.tree.map(lambda x: x.at[..., 0, 0].set(jnp.nan), spoiled["w"])
    state = state._replace(factors=spoiled)
    for times in range(1, 5):
        u, state = update(GRADIENTS, state, PARAMS)
        assert same(decomposed(state)["w"], decomposed(right)["w"])
        assert gt.metrics(state) == {"failed_roots": times}
        assert state.failures["b"] == 0 and all(np.isfinite(x).all() for x in jax.tree.leaves(u))
    _, state = update(GRADIENTS, state._replace(factors=right.factors), PARAMS)
    assert gt.metrics(state) == {"failed_roots": 0}
    assert not same(decomposed(state)["w"], decomposed(right)["w"])


def test_a_root_without_eps_is_taken_as_soon_as_there_is_one():
    tx = gt.scale_by_shampoo(eps=0.0, b1=0.0)
    _, state = tx.update(jnp.zeros((2, 2)), tx.init(jnp.zeros((2, 2))))
    np.testing.assert_array_equal(state.roots[0][0][0], np.eye(2))
    assert gt.metrics(state)["failed_roots"] == 1
    u, state = tx.update(jnp.eye(2) * 4.0, state)
    np.testing.assert_allclose(u, np.eye(2), rtol=1e-5)
    assert gt.metrics(state)["failed_roots"] == 0


SHAPES = {"a": (2, 4), "b": (3, 3), "c": (4, 2), "d": (3, 3)}


def steps_of_change(tx, shapes, place=lambda name, x: x):
    """For each parameter the steps after which it has another basis."""
    params = {n: place(n, jnp.ones(s)) for n, s in shapes.items()}
    update, state = jax.jit(tx.update), tx.init(params)
    found = {n: [] for n in shapes}
    for t in range(1, 8):
        g = {n: place(n, jax.random.normal(jax.random.key(t), s)) for n, s in shapes.items()}
        _, new = update(g, state, params)
        for n, steps in found.items():
            steps += [] if same(decomposed(new)[n], decomposed(state)[n]) else [t]
        state = new
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGGERED)
def test_shapes_take_turns(name):
    """Vectors have turns of their own."""
    found = steps_of_change(STAGGERED[name], {**SHAPES, "e": (3,)})
    assert found.pop("e") == ([1, 3, 6] if name == "shampoo" else [])
    one, two, three = ([1, 3, 6], [1, 2, 5], [1, 4, 7])
    if name in ("soap", "kl_soap", "kl_shampoo"):  # of the call that only makes bases there is no step
        one, two, three = three, one, two
    assert found == {"a": one, "b": two, "c": three, "d": two}


@pytest.mark.slow
def test_turns_depend_neither_on_names_nor_on_devices():
    tx = STAGGERED["splus"]
    expected = steps_of_change(tx, SHAPES)
    renamed = steps_of_change(tx, {n: SHAPES[o] for n, o in zip("abcd", "dcba", strict=True)})
    assert [renamed[n] for n in "dcba"] == list(expected.values())
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Explicit,))
    spec = {"a": P("x"), "c": P(None, "x")}
    with jax.set_mesh(mesh):
        found = steps_of_change(tx, SHAPES, lambda n, x: jax.device_put(x, NamedSharding(mesh, spec.get(n, P()))))
    assert found == expected


def test_without_being_asked_all_change_at_once():
    found = steps_of_change(gt.scale_by_splus(precondition_frequency=3), {"a": (2, 4), "b": (3, 3)})
    assert found == {"a": [1, 3, 6], "b": [1, 3, 6]}


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
