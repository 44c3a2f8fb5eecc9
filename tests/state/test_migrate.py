# SPDX-License-Identifier: Apache-2.0
"""`migrate` carries over what fits, initializes the rest, and says both."""

import json
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import get_slot, migrate
from gradtx.core._roles import Boxed, Role
from gradtx.precision import companded8, float8, int4, int8
from gradtx.results import MigrationReport

PARAMS = {
    "embed": {"table": jnp.linspace(-1.0, 1.0, 10).reshape(5, 2)},
    "layers": [{"kernel": jnp.full((2, 3), i + 1.0), "bias": jnp.zeros(3)} for i in range(2)],
}
RATE = gradtx.linear_schedule(0.1, 0.0, 100)


class Packed(NamedTuple):
    codes: jax.Array
    scale: jax.Array


class FloatState(NamedTuple):
    mu: Any


def pack(p):
    return Packed(jnp.ones(p.shape, jnp.int8), jnp.ones(1))


def keeping(init):
    return gradtx.GradientTransformation(init, lambda g, s, p=None: (g, s))


in_floats = keeping(lambda params: FloatState(jax.tree.map(jnp.ones_like, params)))
in_codes = keeping(lambda params: FloatState(jax.tree.map(pack, params)))
bare = keeping(lambda params: jax.tree.map(jnp.zeros_like, params))


def stepped(tx, steps=3, params=PARAMS):
    state = tx.init(params)
    grads = jax.tree.map(lambda p: jnp.ones_like(p) + 0.1 * p, params)
    update = jax.jit(tx.update)
    for _ in range(steps):
        _, state = update(grads, state, params)
    return state


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def rows(found):
    return [(r.slot, r.parameter) for r in found]


def slots(found):
    return list(dict.fromkeys(r.slot for r in found))


# The same stages in another place.


def test_a_stage_comes_in_and_goes_out():
    plain, clipped = gradtx.adamw(RATE), gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(RATE))
    state = stepped(plain)
    new, report = migrate(state, clipped, PARAMS)
    assert_same(new[1], state)
    assert not (report.initialized or report.dropped or report.grown or report.notes)
    back, report = migrate(new, plain, PARAMS)
    assert_same(back, state)
    assert not (report.initialized or report.dropped)


def test_stages_that_come_in_with_a_state_begin_anew():
    new, report = migrate(stepped(gradtx.adam(0.1)), gradtx.chain(gradtx.trace(0.9), gradtx.adam(0.1)), PARAMS)
    assert slots(report.initialized) == ["0.trace"]
    assert int(new[1][0].count) == 3
    back, report = migrate(new, gradtx.adam(0.1), PARAMS)
    assert slots(report.dropped) == ["0.trace"] and len(report.dropped) == 5


def test_stages_of_one_class_keep_their_order():
    old = stepped(gradtx.chain(gradtx.scale_by_adam(), gradtx.trace(0.5)))
    new, report = migrate(old, gradtx.chain(gradtx.trace(0.9), gradtx.scale_by_adam(), gradtx.trace(0.5)), PARAMS)
    assert_same(new[1:], old)
    assert slots(report.initialized) == ["0.trace"]
    turned, _ = migrate(old, gradtx.chain(gradtx.trace(0.5), gradtx.scale_by_adam()), PARAMS)
    assert_same(turned, old[::-1])


def test_names_of_a_named_chain_count():
    old = gradtx.named_chain(("slow", gradtx.trace(0.9)), ("fast", gradtx.trace(0.1)))
    state = stepped(old)
    new, _ = migrate(state, gradtx.named_chain(("fast", gradtx.trace(0.1))), PARAMS)
    assert_same(new["fast"], state["fast"])


@pytest.mark.slow
def test_in_and_out_of_wrappers():
    state = stepped(gradtx.adamw(RATE))
    everything = jax.tree.map(lambda p: True, PARAMS)
    wraps = (
        gradtx.guard,
        lambda tx: gradtx.MultiSteps(tx, 2),
        lambda tx: gradtx.masked(tx, everything),
        lambda tx: gradtx.with_roles([("**", gradtx.Role())], tx),
    )
    for wrap in wraps:
        wrapped, report = migrate(state, wrap(gradtx.adamw(RATE)), PARAMS)
        assert not report.dropped
        back, _ = migrate(wrapped, gradtx.adamw(RATE), PARAMS)
        assert_same(back, state)


def test_groups():
    """One optimizer for all, then one for each of two groups, and back: each parameter keeps its own averages."""
    grouped = gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.adam(0.2)}, {"embed": "a", "layers": "b"})
    state = stepped(gradtx.adam(0.1))
    new, report = migrate(state, grouped, PARAMS)
    assert not (report.initialized or report.dropped)
    assert get_slot(new, PARAMS, "layers/1/bias", "nu") is state[0].nu["layers"][1]["bias"]
    counts = [x for x in jax.tree.leaves(new) if x.shape == ()]
    assert [int(x) for x in counts] == [3, 3] and counts[0] is not counts[1]
    back, _ = migrate(new, gradtx.adam(0.1), PARAMS)
    assert_same(back, state)


def test_states_that_are_bare_trees():
    old = (stepped(gradtx.trace(0.9)), jax.tree.map(lambda p: p + 1, PARAMS))
    new, report = migrate(old, gradtx.chain(gradtx.identity(), gradtx.trace(0.9), bare), PARAMS)
    assert_same(new[1:], old)
    assert not (report.initialized or report.dropped)
    alone, _ = migrate(old[1], bare, PARAMS)
    assert_same(alone, old[1])


# Counts.


def test_new_schedules_go_on_at_the_old_step():
    new, report = migrate(stepped(gradtx.adam(0.1)), gradtx.adam(RATE), PARAMS)
    assert [int(x) for x in jax.tree.leaves(new) if x.shape == ()] == [3, 3]
    assert ("the step",) == tuple(r.source for r in report.carried if r.slot == "1.count")
    no_counts = stepped(gradtx.sgd(0.1))
    assert int(migrate(no_counts, gradtx.sgd(RATE), PARAMS)[0][1].count) == 0
    assert int(migrate(no_counts, gradtx.sgd(RATE), PARAMS, step=70)[0][1].count) == 70


def test_schedules_follow_restarts_and_ages_do_not():
    state = gradtx.restart(stepped(gradtx.adam(RATE)), at=50)
    new, _ = migrate(state, gradtx.chain(gradtx.add_decayed_weights(RATE), gradtx.adam(RATE)), PARAMS)
    assert int(new[0].count) == 50
    assert (int(new[1][0].count), int(new[1][1].count)) == (3, 50)


def test_the_age_of_averages_that_begin_anew_is_0():
    state = stepped(gradtx.chain(gradtx.trace(0.9), gradtx.scale_by_schedule(RATE)))
    new, report = migrate(state, gradtx.adam(RATE), PARAMS)
    assert int(new[0].count) == 0 and int(new[1].count) == 3
    assert slots(report.initialized) == ["0.count", "0.mu", "0.nu"]
    updates, _ = gradtx.adam(1.0).update(PARAMS, (new[0], gradtx.states.EmptyState()), PARAMS)
    np.testing.assert_allclose(jnp.abs(updates["layers"][1]["kernel"]), 1.0, rtol=1e-5)


# Other rules.


@pytest.mark.parametrize("rule", [gradtx.lion, gradtx.muon, gradtx.amsgrad, gradtx.ademamix])
def test_rules_that_go_on_with_the_averages_of_adam(rule):
    state = stepped(gradtx.adamw(0.1))
    tx = rule(0.1)
    new, report = migrate(state, tx, PARAMS)
    carried = {r.parameter for r in report.carried if r.source == "0.mu"}
    assert len(carried) == 5 and not report.notes
    for name in ("mu", "m1"):
        for slot in [s for s in gradtx.find_slots(new, PARAMS) if s.name.endswith(f".{name}")]:
            assert slot.value is get_slot(state, PARAMS, slot.parameter, "mu")


def test_rmsprop_goes_on_with_the_second_moment_of_adam():
    state = stepped(gradtx.adamw(0.1))
    new, report = migrate(state, gradtx.rmsprop(0.1), PARAMS)
    assert new[0].nu["embed"]["table"] is state[0].nu["embed"]["table"] and not report.initialized


def test_boxes_of_roles_are_seen_through():
    boxed = jax.tree.map(lambda p: Boxed(p, Role()), PARAMS)
    tx = gradtx.GradientTransformation(lambda params: FloatState(boxed), lambda g, s, p=None: (g, s))
    found = gradtx.find_slots(tx.init(PARAMS), PARAMS, "table", "mu")
    assert found[0].value is PARAMS["embed"]["table"]
    for old in (FloatState(PARAMS), FloatState(boxed)):
        new, report = migrate(jax.tree.map(lambda x: x + 1, old), tx, PARAMS)
        assert len(report.carried) == 5 and not report.initialized
        np.testing.assert_array_equal(new.mu["embed"]["table"].value, PARAMS["embed"]["table"] + 1)


def test_what_would_make_steps_of_a_wrong_size_is_not_carried():
    new, report = migrate(stepped(gradtx.lion(0.1)), gradtx.adam(0.1), PARAMS)
    assert slots(report.initialized) == ["0.count", "0.mu", "0.nu"]
    assert report.notes[0].startswith("0 (scale_by_adam): mu would fit, but the old state has nothing for nu")
    forced, report = migrate(stepped(gradtx.lion(0.1)), gradtx.adam(0.1), PARAMS, rename={"mu": "mu"})
    assert slots(report.carried) == ["0.count", "0.mu"] and int(forced[0].count) == 3
    assert "0.count is one age for all parameters" in report.notes[0]


def test_rules_that_share_a_class_are_told_apart_by_old_tx():
    state = stepped(gradtx.adam(0.1))
    assert len(migrate(state, gradtx.adamax(0.1), PARAMS)[1].carried) == 11
    new, report = migrate(state, gradtx.adamax(0.1), PARAMS, old_tx=gradtx.adam(0.1))
    assert not report.carried and "nu" in report.notes[0]
    _, report = migrate(state, gradtx.stable_adamw(0.1), PARAMS, old_tx=gradtx.adam(0.1))
    assert len(report.carried) == 11


def test_a_sum_becomes_an_average_only_if_asked():
    state = stepped(gradtx.sgd(0.1, momentum=0.9))
    assert not migrate(state, gradtx.lion(0.1), PARAMS)[1].carried
    new, report = migrate(state, gradtx.lion(0.1), PARAMS, rename={"trace": ("mu", lambda x: 0.1 * x)})
    np.testing.assert_allclose(new[0].mu["embed"]["table"], 0.1 * state[0].trace["embed"]["table"])
    assert ("0.mu", "0.trace") in {(r.slot, r.source) for r in report.carried}
    _, report = migrate(state, gradtx.adam(0.1), PARAMS, rename={"0.trace": "0.mu"})
    assert report.notes == ("0.count begins at 0, though slots beside it do not: give step",)
    aged, report = migrate(state, gradtx.adam(0.1), PARAMS, rename={"0.trace": "0.mu"}, step=3)
    assert int(aged[0].count) == 3


def test_dtypes_are_those_of_the_new_state():
    new, report = migrate(stepped(gradtx.adamw(0.1)), gradtx.adamw(0.1, mu_dtype=jnp.bfloat16), PARAMS)
    assert new[0].mu["embed"]["table"].dtype == jnp.bfloat16 and not report.initialized
    back, _ = migrate(new, gradtx.adamw(0.1), PARAMS)
    assert back[0].mu["embed"]["table"].dtype == jnp.float32


def test_slots_of_several_arrays():
    old = jax.tree.map(lambda x: x + jnp.ones([], x.dtype), in_codes.init(PARAMS))
    new, report = migrate(old, gradtx.chain(gradtx.identity(), in_codes), PARAMS)
    assert_same(new[1], old)
    assert rows(report.carried)[0] == ("1.mu", "embed/table")
    new, report = migrate(old, in_floats, PARAMS)
    assert_same(new, in_floats.init(PARAMS))
    assert report.initialized[0].reason == "stored as int8[5, 2] and float32[1] before, as float32[5, 2] now"
    assert len(report.dropped) == 5


# Other parameters.


def test_a_vocabulary_grows():
    tx = gradtx.adamw(RATE)
    state = stepped(tx, 200)
    larger = {**PARAMS, "embed": {"table": jnp.ones((7, 2))}}
    with pytest.raises(ValueError, match=r"grown: 0.mu of embed/table: shape \(5, 2\) before, \(7, 2\) now; .* grow"):
        migrate(state, tx, larger)
    new, report = migrate(state, tx, larger, grow="init")
    mu, old = get_slot(new, larger, "embed/table", "mu"), get_slot(state, PARAMS, "embed/table", "mu")
    np.testing.assert_array_equal(mu[:5], old)
    np.testing.assert_array_equal(mu[5:], 0)
    assert rows(report.grown) == [("0.mu", "embed/table"), ("0.nu", "embed/table")] and not report.initialized
    assert report.notes and report.notes[0].startswith("0.count is one age for all parameters")

    new, report = migrate(state, tx, larger, grow={"mu": "init", "nu": "mean"})
    nu, old = get_slot(new, larger, "embed/table", "nu"), get_slot(state, PARAMS, "embed/table", "nu")
    np.testing.assert_allclose(nu[5:], jnp.mean(old, axis=0, keepdims=True).repeat(2, 0), rtol=1e-6)
    np.testing.assert_array_equal(get_slot(new, larger, "embed/table", "mu")[5:], 0)

    new, _ = migrate(state, tx, larger, grow=lambda old, new: jnp.pad(old, ((0, 2), (0, 0)), constant_values=9.0))
    np.testing.assert_array_equal(get_slot(new, larger, "embed/table", "nu")[5:], 9.0)
    new, report = migrate(state, tx, larger, grow="reset")
    np.testing.assert_array_equal(get_slot(new, larger, "embed/table", "mu"), 0)
    assert rows(report.initialized) == [("0.mu", "embed/table"), ("0.nu", "embed/table")]


def test_new_rows_take_steps_of_the_usual_size_if_nu_is_padded_by_its_mean():
    tx = gradtx.adam(1.0)
    state, larger = stepped(tx, 1000, {"table": jnp.ones((5, 1))}), {"table": jnp.ones((6, 1))}
    longest = {}
    for name, grow in (("init", "init"), ("mean", {"mu": "init", "nu": "mean"})):
        now, sizes = migrate(state, tx, larger, grow=grow)[0], []
        for _ in range(100):
            updates, now = tx.update(jax.tree.map(lambda p: 1.1 * p, larger), now, larger)
            sizes.append(float(jnp.abs(updates["table"][5, 0])))
        longest[name] = max(sizes)
    assert longest["init"] > 4 and longest["mean"] < 1.001


def test_a_stack_of_layers_grows_along_its_axis():
    old, new = {"w": jnp.ones((2, 4, 3))}, {"w": jnp.ones((3, 4, 3))}
    tx = gradtx.adam(0.1)
    state = stepped(tx, params=old)
    grown, _ = migrate(state, tx, new, grow="init")
    np.testing.assert_array_equal(grown[0].nu["w"][:2], state[0].nu["w"])
    np.testing.assert_array_equal(grown[0].nu["w"][2:], 0)


def test_layers_come_and_go():
    tx = gradtx.adamw(RATE)
    state = stepped(tx)
    more = {**PARAMS, "layers": [*PARAMS["layers"], {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}]}
    new, report = migrate(state, tx, more)
    assert rows(report.initialized) == [(f"0.{s}", f"layers/2/{p}") for s in ("mu", "nu") for p in ("bias", "kernel")]
    assert not report.dropped and new[0].count.tolist() == [3] * 5 + [0, 0]
    back, report = migrate(new, tx, PARAMS)
    assert_same(back, state)
    assert rows(report.dropped) == [(f"0.{s}", f"layers/2/{p}") for s in ("mu", "nu") for p in ("bias", "kernel")]


def test_a_layer_is_put_between():
    tx = gradtx.lion(0.1)
    state = stepped(tx)
    between = {**PARAMS, "layers": [PARAMS["layers"][0], {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}]}
    between["layers"].append(PARAMS["layers"][1])

    def moved(path):
        return None if path.startswith("layers/1/") else path.replace("layers/2/", "layers/1/")

    new, report = migrate(state, tx, between, moved=moved)
    assert new[0].mu["layers"][2]["kernel"] is state[0].mu["layers"][1]["kernel"]
    assert slots(report.initialized) == ["0.mu"] and {r.parameter for r in report.initialized} == {
        "layers/1/kernel",
        "layers/1/bias",
    }
    renamed = {"tokens": PARAMS["embed"], "layers": PARAMS["layers"]}
    _, report = migrate(state, tx, renamed, moved={"tokens/table": "embed/table"})
    assert not (report.initialized or report.dropped)


def test_other_shapes_begin_anew():
    tx = gradtx.adam(0.1)
    smaller = {**PARAMS, "embed": {"table": jnp.ones((5, 1))}}
    _, report = migrate(stepped(tx), tx, smaller)
    assert rows(report.initialized) == [("0.mu", "embed/table"), ("0.nu", "embed/table")]
    assert report.initialized[0].reason == "shape (5, 2) before, (5, 1) now"


# Out of checkpoints and of Optax.


def test_states_of_optax():
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(lambda count: 0.1 / (1 + count)))
    with jax.numpy_dtype_promotion("standard"):
        state = stepped(tx)
    new, report = migrate(state, gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(RATE)), PARAMS)
    assert not (report.initialized or report.dropped)
    assert [int(x) for x in jax.tree.leaves(new) if x.shape == ()] == [3, 3]
    jax.tree.map(np.testing.assert_array_equal, new[1][0].nu, state[1][0].nu)


@pytest.mark.parametrize("tx", [gradtx.adamw(RATE), gradtx.guard(gradtx.muon(RATE))], ids=["adamw", "muon"])
def test_dictionaries_of_flax(tx):
    import flax.serialization

    state = stepped(tx)
    plain = flax.serialization.to_state_dict(state)
    new, report = migrate(plain, tx, PARAMS)
    assert_same(new, state)
    assert not (report.initialized or report.dropped)
    packed = flax.serialization.msgpack_restore(flax.serialization.msgpack_serialize(plain))
    new, report = migrate(packed, gradtx.chain(gradtx.clip_by_global_norm(1.0), tx), PARAMS)
    assert_same(new[1], state)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(new))


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_orbax(tmp_path):
    import orbax.checkpoint as ocp

    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(RATE))
    state = stepped(tx)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        plain = checkpointer.restore(tmp_path / "state")
    new, report = migrate(plain, tx, PARAMS)
    assert_same(new, state)
    assert not (report.initialized or report.dropped)


# The report, errors, compilation.


def test_the_report_as_text_and_as_dictionaries():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lion(RATE))
    _, report = migrate(stepped(gradtx.adam(0.1)), tx, {**PARAMS, "head": jnp.ones(2)})
    assert (
        str(report)
        == """\
carried      1.0.count  from 0.count: 0 for head
carried      1.0.mu     5 parameters from 0.mu
carried      1.2.count  from the step
grown        nothing
initialized  1.0.mu     head
dropped      0.nu       5 parameters"""
    )
    found = report.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["carried"][0] == {"slot": "1.0.count", "parameter": None, "source": "0.count", "reason": "0 for head"}
    assert str(MigrationReport()).count("nothing") == 4


def test_errors():
    state = stepped(gradtx.adam(0.1))
    with pytest.raises(ValueError, match="migrate: rename: old_state has no slot 'trace'; it has 0.count, 0.mu, 0.nu"):
        migrate(state, gradtx.lion(0.1), PARAMS, rename={"trace": "mu"})
    with pytest.raises(ValueError, match="migrate: rename: new_tx has no slot 'momentum'; it has 0.count, 0.mu"):
        migrate(state, gradtx.lion(0.1), PARAMS, rename={"mu": "momentum"})
    with pytest.raises(
        ValueError, match="migrate: grow must be one of 'init', 'mean', 'reset' or a function, got 'zero'"
    ):
        migrate(state, gradtx.lion(0.1), PARAMS, grow="zero")
    with pytest.raises(ValueError, match="migrate: step must be a number of updates"):
        migrate(state, gradtx.lion(0.1), PARAMS, step=-1)
    with pytest.raises(TypeError, match="migrate: new_tx must be a transformation"):
        migrate(state, gradtx.lion, PARAMS)
    with pytest.raises(ValueError, match=r"migrate: grow must return the shape \(7, 2\) for \(5, 2\), got \(5, 2\)"):
        migrate(state, gradtx.adam(0.1), {**PARAMS, "embed": {"table": jnp.ones((7, 2))}}, grow=lambda old, new: old)


def test_inside_jit_and_on_shapes():
    state = stepped(gradtx.adam(0.1))
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(RATE))
    want, _ = migrate(state, tx, PARAMS)
    assert_same(jax.jit(lambda s, p: migrate(s, tx, p)[0])(state, PARAMS), want)
    shapes = jax.eval_shape(lambda s, p: migrate(s, tx, p)[0], state, PARAMS)
    assert jax.tree.structure(shapes) == jax.tree.structure(want)


def test_the_new_state_can_be_donated():
    """No array is at two places."""
    new, _ = migrate(stepped(gradtx.adam(0.1)), gradtx.muon(RATE), PARAMS)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(new)]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.slow
@pytest.mark.parametrize("codec", [int8(4), float8("e4m3", 4), companded8(4), int4(4)], ids=repr)
@pytest.mark.parametrize("restored", [False, True], ids=["as it was", "restored as dictionaries"])
def test_moments_in_few_bits_grow(codec, restored):
    """As arrays, whose new entries are then encoded; codes of themselves cannot grow."""
    tx = gradtx.stored(gradtx.trace(0.9), {"trace": codec}, min_size=0)
    small, large = {"w": jnp.ones((2, 7)), "b": jnp.ones(3)}, {"w": jnp.ones((4, 7)), "b": jnp.ones(3)}
    # Equal numbers are stored exactly.
    state = tx.update({"w": jnp.full((2, 7), 3.0), "b": jnp.full(3, 2.0)}, tx.init(small))[1]
    old = flax.serialization.to_state_dict(state) if restored else state
    with pytest.raises(
        ValueError, match=r"slots have grown: inner_state.trace of w: shape \(2, 7\) before, \(4, 7\) now"
    ):
        migrate(old, tx, large)
    for grow, entry in [("init", 0.0), ("mean", 3.0), (lambda old, new: new.at[:2].set(old), 0.0)]:
        new, report = migrate(old, tx, large, grow=grow)
        assert rows(report.grown) == [("inner_state.trace", "w")] and not report.dropped
        assert jax.tree.structure(new) == jax.tree.structure(tx.init(large))
        found = new.inner_state.trace["w"].decoded((4, 7))
        np.testing.assert_allclose(found, np.repeat([3.0, entry], 2)[:, None] * np.ones(7), rtol=1e-6)
        assert_same(new.inner_state.trace["b"], state.inner_state.trace["b"])


@pytest.mark.slow
def test_moments_that_grow_into_storage():
    """Those of fewer elements than `min_size` were in float32, beside others that were stored."""
    tx = gradtx.stored(gradtx.trace(0.9), {"trace": int8(4)}, min_size=8)
    small, large = {"w": jnp.ones((2, 3)), "b": jnp.ones(8)}, {"w": jnp.ones((3, 3)), "b": jnp.ones(8)}
    state = tx.update(jax.tree.map(lambda p: 3.0 * p, small), tx.init(small))[1]
    new, report = migrate(state, tx, large, grow="mean")
    assert rows(report.grown) == [("inner_state.trace", "w")]
    np.testing.assert_allclose(new.inner_state.trace["w"].decoded((3, 3)), np.full((3, 3), 3.0), rtol=1e-6)
