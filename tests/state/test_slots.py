# SPDX-License-Identifier: Apache-2.0
"""What a state holds for a parameter is found, read, set and reset by the path of the parameter and a name."""

import re
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import find_slots, get_slot, reset, set_slot, where
from gradtx.precision import float8, int4, int8

PARAMS = {
    "embed": {"table": jnp.ones((5, 2))},
    "layers": [{"kernel": jnp.full((2, 3), i + 1.0), "bias": jnp.zeros(3)} for i in range(2)],
}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)


class Packed(NamedTuple):
    codes: jax.Array
    scale: jax.Array


class PackedState(NamedTuple):
    mu: Any


def packed_init(params):
    return PackedState(jax.tree.map(lambda p: Packed(jnp.zeros(p.shape, jnp.int8), jnp.ones(1)), params))


packed = gradtx.GradientTransformation(packed_init, lambda g, s, p=None: (g, s))


def stepped(tx, steps=3, params=PARAMS):
    state = tx.init(params)
    for _ in range(steps):
        _, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    return state


def listed(slots):
    return [(s.parameter, s.name) for s in slots]


def test_all_slots():
    state = stepped(gradtx.adamw(0.1))
    paths = ["embed/table", "layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel"]
    assert listed(find_slots(state, PARAMS)) == [(p, n) for n in ("0.mu", "0.nu") for p in paths]
    found = find_slots(state, PARAMS, "layers/1/kernel", "nu")
    assert found[0].value is state[0].nu["layers"][1]["kernel"]
    assert repr(found) == "[StateSlot(layers/1/kernel, 0.nu: float32[2, 3])]"


@pytest.mark.parametrize(
    "chosen",
    [
        "layers/*/kernel",
        re.compile(r"layers/\d/k"),
        lambda path, p: p.shape == (2, 3),
        ("layers/0/kernel", "layers/1/kernel"),
        where("kernel"),
    ],
)
def test_ways_to_choose(chosen):
    found = find_slots(stepped(gradtx.lion(0.1)), PARAMS, chosen)
    assert listed(found) == [("layers/0/kernel", "0.mu"), ("layers/1/kernel", "0.mu")]


@pytest.mark.slow
def test_names_of_slots():
    tx = gradtx.chain(gradtx.trace(0.9), gradtx.guard(gradtx.adam(0.1)), gradtx.trace(0.5))
    state = stepped(tx)
    assert [s.name for s in find_slots(state, PARAMS, "embed/**")] == [
        "0.trace",
        "1.inner_state.0.mu",
        "1.inner_state.0.nu",
        "2.trace",
    ]
    assert [s.name for s in find_slots(state, PARAMS, "embed/**", "trace")] == ["0.trace", "2.trace"]
    assert [s.name for s in find_slots(state, PARAMS, "embed/**", ("2.trace", "nu"))] == [
        "1.inner_state.0.nu",
        "2.trace",
    ]
    named = gradtx.named_chain(("first", gradtx.adam(0.1)), ("second", gradtx.trace(0.5)))
    assert get_slot(stepped(named), PARAMS, "embed/table", "second.trace").shape == (5, 2)


def test_groups_have_the_slots_of_their_parameters():
    labels = {"embed": "adam", "layers": "sgd"}
    tx = gradtx.partition({"adam": gradtx.adam(0.1), "sgd": gradtx.sgd(0.1, momentum=0.9)}, labels)
    state = stepped(tx)
    assert get_slot(state, PARAMS, "embed/table", "mu").shape == (5, 2)
    assert get_slot(state, PARAMS, "layers/0/bias", "trace").shape == (3,)
    with pytest.raises(ValueError, match=r"get_slot: embed/table has no slot 'trace'; its slots are inner_states.adam"):
        get_slot(state, PARAMS, "embed/table", "trace")


def test_states_of_optax():
    with jax.numpy_dtype_promotion("standard"):
        state = stepped(optax.adamw(0.1))
    assert get_slot(state, PARAMS, "layers/0/kernel", "nu") is state[0].nu["layers"][0]["kernel"]


def test_set():
    state = stepped(gradtx.adamw(0.1, mu_dtype=jnp.bfloat16))
    new = set_slot(state, PARAMS, "layers/0/bias", "mu", np.arange(3.0))
    assert new[0].mu["layers"][0]["bias"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(get_slot(new, PARAMS, "layers/0/bias", "0.mu").astype(jnp.float32), np.arange(3.0))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    others = [(a is b) for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True)]
    assert others.count(False) == 1


def test_set_inside_jit():
    state = stepped(gradtx.adam(0.1))
    new = jax.jit(lambda s: set_slot(s, PARAMS, "embed/table", "nu", jnp.zeros((5, 2))))(state)
    np.testing.assert_array_equal(new[0].nu["embed"]["table"], 0)
    chex.assert_trees_all_equal(new[0].mu, state[0].mu)


def test_slots_of_several_arrays():
    state = packed.init(PARAMS)
    value = get_slot(state, PARAMS, "layers/0/bias", "mu")
    assert isinstance(value, Packed)
    new = set_slot(state, PARAMS, "layers/0/bias", "mu", Packed(jnp.ones(3, jnp.int8), jnp.zeros(1)))
    np.testing.assert_array_equal(new.mu["layers"][0]["bias"].codes, 1)
    with pytest.raises(ValueError, match="set_slot: mu of layers/0/bias is PyTreeDef.*, got PyTreeDef"):
        set_slot(state, PARAMS, "layers/0/bias", "mu", jnp.ones(3))
    with pytest.raises(TypeError, match="dtype int8, which cannot hold values of dtype float32"):
        set_slot(state, PARAMS, "layers/0/bias", "mu", Packed(jnp.ones(3), jnp.zeros(1)))


def test_none_and_one_array_as_parameters():
    tx = gradtx.adam(0.1)
    assert listed(find_slots(tx.init({"a": None, "b": jnp.ones(2)}), {"a": None, "b": jnp.ones(2)}, slot="mu")) == [
        ("b", "0.mu")
    ]
    for p in (jnp.ones(2), jnp.ones(())):
        assert listed(find_slots(tx.init(p), p)) == [("", "0.mu"), ("", "0.nu")]
        assert get_slot(tx.init(p), p, "", "mu").shape == p.shape


def test_errors_name_what_there_is():
    state = stepped(gradtx.adam(0.1))
    with pytest.raises(ValueError, match="there is no parameter at 'layers/0/kernal'; the closest are layers/0/kernel"):
        get_slot(state, PARAMS, "layers/0/kernal", "mu")
    with pytest.raises(ValueError, match="get_slot: the state has no slot 'momentum'; the slots are 0.mu, 0.nu"):
        get_slot(state, PARAMS, "layers/0/kernel", "momentum")
    with pytest.raises(ValueError, match="'heads/[*]' chooses no parameter; the parameters are embed/table"):
        find_slots(state, PARAMS, "heads/*")
    with pytest.raises(TypeError, match="find_slots: where: parameters are chosen by"):
        find_slots(state, PARAMS, 3)
    with pytest.raises(ValueError, match=r"0.mu of embed/table has shape \(5, 2\), the value has shape \(2,\)"):
        set_slot(state, PARAMS, "embed/table", "mu", jnp.ones(2))
    two = stepped(gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5)))
    with pytest.raises(ValueError, match="several slots 'trace': 0.trace, 1.trace; name one"):
        get_slot(two, PARAMS, "embed/table", "trace")


# Reset.


def test_reset_chooses_parameters_and_slots():
    tx = gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 100))
    state = stepped(tx)
    new = reset(tx, state, PARAMS, "layers/1/**", "mu")
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for before, after in zip(find_slots(state, PARAMS), find_slots(new, PARAMS), strict=True):
        if before.name == "0.mu" and before.parameter.startswith("layers/1"):
            np.testing.assert_array_equal(after.value, 0)
        else:
            assert after.value is before.value
    assert new[0].count is state[0].count and new[2].count is state[2].count


def test_reset_gives_what_init_gives():
    tx = gradtx.adagrad(0.1, initial_accumulator_value=0.3)
    state = stepped(tx)
    np.testing.assert_allclose(
        get_slot(reset(tx, state, PARAMS, "table"), PARAMS, "embed/table", "sum_of_squares"), 0.3
    )
    everything = reset(tx, state, PARAMS)
    chex.assert_trees_all_equal(everything, tx.init(PARAMS))


def test_reset_inside_jit_and_training_goes_on():
    tx = gradtx.adam(0.1)
    state = jax.jit(lambda s: reset(tx, s, PARAMS, "layers/*/bias"))(stepped(tx))
    updates, state = tx.update(GRADS, state, PARAMS)
    assert state[0].count.tolist() == [4, 1, 4, 1, 4]
    assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))


@pytest.mark.slow
def test_what_reset_says_of_the_steps_that_follow():
    """With one age for all, the steps of what was reset are longer for a while, unless nu stays."""
    tx = gradtx.adam(1.0)
    state = stepped(tx, 1000, {"a": jnp.ones(1), "b": jnp.ones(1)})
    params, longest = {"a": jnp.ones(1), "b": jnp.ones(1)}, {}
    for slots in (None, "mu"):
        now, sizes = reset(tx, state, params, "a", slots, own_age=False), []
        for _ in range(200):
            updates, now = tx.update(params, now, params)
            sizes.append(float(jnp.abs(updates["a"][0])))
            np.testing.assert_allclose(updates["b"], -1.0, rtol=1e-3)
        longest[slots] = max(sizes)
    assert 4 < longest[None] < 7 and longest["mu"] <= 1.001


def test_reset_refuses_what_does_not_fit():
    tx = gradtx.adam(0.1)
    with pytest.raises(ValueError, match="reset: this is not a state of tx for these parameters; migrate"):
        reset(gradtx.lion(0.1), stepped(tx), PARAMS, "table")
    with pytest.raises(TypeError, match="reset: tx must be a transformation"):
        reset(gradtx.adam, stepped(tx), PARAMS, "table")
    frozen = gradtx.masked(tx, {"embed": False, "layers": True})
    with pytest.raises(ValueError, match="reset: the state holds nothing .* the parameters that 'table' chooses"):
        reset(frozen, frozen.init(PARAMS), PARAMS, "table")


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [[jnp.ones((4, 8)), jnp.ones(())], (jnp.ones(7), jnp.ones(())), jnp.ones(()), [jnp.ones((4, 7))]],
    ids=["list", "tuple", "scalar", "odd"],
)
@pytest.mark.parametrize("codec", [int8(), float8(), int4()], ids=repr)
def test_slots_of_few_bits_of_parameters_without_names(params, codec):
    """Of lists, tuples and single arrays a slot is told by its shape, which a payload has too."""
    tx = gradtx.stored(gradtx.adam(1e-2), {"mu": codec, "nu": type(codec)(signed=False)}, min_size=0)
    state = tx.init(params)
    names = [str(i) for i in range(len(params))] if isinstance(params, list | tuple) else [""]
    expected = [(p, f"inner_state.0.{slot}") for slot in ("mu", "nu") for p in names]
    assert listed(find_slots(state, params)) == expected
    assert [row.path for row in gradtx.describe(tx, params).parameters] == [p or "(root)" for p in names]
    assert jax.tree.structure(reset(tx, state, params)) == jax.tree.structure(state)
    for old, new in [(tx, gradtx.adam(1e-2)), (gradtx.adam(1e-2), tx), (tx, tx)]:
        _, report = gradtx.migrate(old.init(params), new, params)
        carried = {(r.parameter, r.slot.rpartition(".")[2]) for r in report.carried if r.parameter is not None}
        assert carried == {(p, slot) for slot in ("mu", "nu") for p in names}
