# SPDX-License-Identifier: Apache-2.0
"""Averages that begin anew beside old ones have an age of their own, so that their first steps are not too long."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

SHAPE = (16,)
PARAMS = {"new": jnp.zeros(SHAPE), "old": jnp.zeros(SHAPE)}
ADAM = gt.adam(1e-3)


def gradients(i):
    """Noise; that of the new parameter is 100 times smaller than that of the old."""
    x = np.random.default_rng(i).standard_normal((2, *SHAPE)).astype(np.float32)
    return {"new": np.float32(0.01) * x[0], "old": x[1]}


def run(tx, state, steps, begin, params=PARAMS):
    """The updates of some steps, one row a step, and the last state."""

    def step(carry, g):
        params, state = carry
        u, state = tx.update(g, state, params)
        return (gt.apply_updates(params, u), state), u

    given = [gradients(begin + i) for i in range(steps)]
    given = {name: jnp.asarray(np.stack([g[name] for g in given])) for name in params}
    (_, state), us = jax.jit(lambda s, g: jax.lax.scan(step, (params, s), g))(state, given)
    return us, state


def of_optax(begin):
    """The updates of a new run of Optax's Adam of 200 steps."""
    tx = optax.adam(1e-3)
    return run(tx, tx.init(PARAMS), 200, begin)[0]


def longest(us, steps):
    return float(np.sqrt(np.mean(np.square(np.sum(np.asarray(us)[:steps], axis=0)))))


@pytest.fixture(scope="module")
def trained():
    """The states after 1,000 steps, of Adam with a frozen parameter and of Adam on both."""
    frozen = gt.groups([("new", "frozen")], ADAM)
    return {tx: run(tx, tx.init(PARAMS), 1000, 0)[1] for tx in (frozen, ADAM)}, frozen


@pytest.mark.slow
@pytest.mark.parametrize("by", ["migrate", "reset", "grow"])
@pytest.mark.usefixtures("standard_promotion")
def test_first_steps_are_those_of_a_new_run(trained, by):
    states, frozen = trained
    if by == "migrate":
        state, report = gt.migrate(states[frozen], ADAM, PARAMS)
        assert [row.reason for row in report.carried if row.slot == "0.count"] == ["0 for new"] and not report.notes
    elif by == "reset":
        state = gt.reset(ADAM, states[ADAM], PARAMS, "new")
    else:
        adam, *rest = states[ADAM]
        smaller = [{"new": x["new"][:9], "old": x["old"]} for x in (adam.mu, adam.nu)]
        state, report = gt.migrate((type(adam)(adam.count, *smaller), *rest), ADAM, PARAMS, grow="reset")
        assert not report.notes
    np.testing.assert_array_equal(state[0].count, [0, 1000])
    us, after = run(ADAM, state, 200, 1000)
    np.testing.assert_array_equal(after[0].count, [200, 1200])
    first, fresh = of_optax(0), of_optax(1000)
    np.testing.assert_allclose(us["new"], fresh["new"], rtol=2e-4, atol=1e-8)
    for steps in (5, 200):
        own = max(longest(x["old"], steps) for x in (first, fresh))
        assert longest(us["new"], steps) < 1.5 * own
    # The others go on as if nothing had happened.
    before = frozen if by == "migrate" else ADAM
    on, _ = run(before, states[before], 200, 1000)
    np.testing.assert_allclose(us["old"], on["old"], rtol=1e-5, atol=1e-9)


SMALL = {"a": jnp.ones((2, 2)), "b": jnp.ones(3), "c": jnp.ones(2)}
GRADS = {"a": jnp.asarray([[1.0, -2.0], [0.5, 1.0]]), "b": jnp.asarray([0.3, -0.1, 2.0]), "c": jnp.ones(2)}
SCHEDULE = gt.linear_schedule(0.9, 0.5, 100)
RULES = {
    "adam": gt.scale_by_adam(),
    "adam with a schedule": gt.scale_by_adam(b1=SCHEDULE),
    "amsgrad": gt.scale_by_amsgrad(),
    "adan": gt.scale_by_adan(),
    "radam": gt.scale_by_radam(),
    "in few bits": gt.stored(gt.scale_by_adam(), {"nu": gt.precision.bfloat16()}, min_size=1),
    "roles": gt.with_roles([("a", gt.Role("hidden", stack=0)), ("**", gt.Role())], gt.scale_by_adam()),
    "groups in a stack": gt.with_roles(
        [("a", gt.Role("hidden", stack=0)), ("**", gt.Role())],
        gt.groups([("a", {"learning_rate": gt.layerwise_decay(0.5)}), ("b", {"b1": 0.5})], gt.adam(0.1)),
    ),
    "groups": gt.groups([("b", {"b1": 0.5})], gt.adam(0.1)),
}


def stepped(tx, steps, state=None, grads=GRADS, params=SMALL):
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        u, state = tx.update(grads, state, params)
    return u, state


@pytest.mark.parametrize("rule", RULES)
def test_every_parameter_is_as_in_a_run_of_its_own_age(rule):
    """Those that were reset as after one step, the others as after four."""
    tx = RULES[rule]
    _, state = stepped(tx, 3)
    u, after = stepped(tx, 1, gt.reset(tx, state, SMALL, "b"))
    old, _ = stepped(tx, 1, state)
    new = tx.init(SMALL)
    if "schedule" in rule:  # which goes on
        new = gt.restart(new, at=3)
    new, _ = stepped(tx, 1, new)
    for name, want in (("a", old), ("b", new), ("c", old)):
        np.testing.assert_allclose(u[name], want[name], rtol=1e-5, err_msg=name)
    ages = gt.tree.get(after, "t" if rule == "adan" else "count", filtering=lambda path, x: x.ndim == 1)
    assert ages.tolist() == [4, 1, 4]


def test_a_count_that_need_not_be_split_stays_one_number():
    tx = gt.adamw(gt.linear_schedule(0.1, 0.0, 100))
    _, state = stepped(tx, 3)
    everything = gt.reset(tx, state, SMALL)
    assert everything[0].count.shape == () and int(everything[0].count) == 0 and int(everything[2].count) == 3
    for kept in (gt.reset(tx, state, SMALL, "b", "mu"), gt.reset(tx, state, SMALL, "b", own_age=False)):
        assert kept[0].count is state[0].count
    # Whose count is the step of schedules, or belongs to numbers of the whole tree.
    for tx in (gt.momo(gt.linear_schedule(0.1, 0.0, 100)), gt.prodigy(), gt.params_ema(0.5)):
        state = tx.init(SMALL)
        assert jax.tree.map(jnp.shape, gt.reset(tx, state, SMALL, "b")) == jax.tree.map(jnp.shape, state)


def test_a_parameter_without_a_gradient_does_not_age():
    tx = gt.scale_by_adam()
    state = gt.reset(tx, stepped(tx, 3)[1], SMALL, "b")
    _, state = stepped(tx, 1, state, {**GRADS, "b": None})
    assert state.count.tolist() == [4, 0, 4]


def test_ages_go_with_the_averages():
    tx = gt.scale_by_adam()
    aged = gt.reset(tx, stepped(tx, 3)[1], SMALL, "b")
    _, aged = stepped(tx, 2, aged)
    assert aged.count.tolist() == [5, 2, 5]
    new, report = gt.migrate(aged, gt.chain(gt.clip(1.0), gt.adam(0.1)), SMALL)
    assert new[1][0].count.tolist() == [5, 2, 5] and not report.dropped + report.initialized
    # Other parameters, in another order, one of them new, and others that have moved.
    more = {"0": jnp.ones(2), "b": SMALL["b"], "z": SMALL["a"]}
    new, report = gt.migrate(aged, tx, more, moved={"z": "a"})
    assert new.count.tolist() == [0, 2, 5]
    assert {row.parameter for row in report.dropped if row.slot != "count"} == {"c"}
    # A rule without ages, and back.
    assert int(gt.migrate(aged, tx, SMALL, own_age=False)[0].count) == 5
    momo = gt.momo(gt.linear_schedule(0.1, 0.0, 100))
    assert int(gt.migrate(aged, momo, SMALL)[0].count) == 5


def test_ages_come_back_from_a_checkpoint_without_classes():
    tx = gt.adam(0.1)
    state = gt.reset(tx, stepped(tx, 3)[1], SMALL, "b")
    restored = {"0": {n: getattr(state[0], n) for n in state[0]._fields}}
    new, report = gt.migrate(restored, tx, SMALL)
    assert jax.tree.map(np.array_equal, new, state) and new[0].count.tolist() == [3, 0, 3]
    assert not report.dropped


def test_groups_that_become_one_keep_their_ages():
    both = gt.partition({"x": gt.adam(0.1), "y": gt.adam(0.1)}, {"a": "x", "b": "y", "c": "x"})
    _, state = stepped(both, 3)
    young = gt.reset(both, state, SMALL, "b")
    assert [int(s.inner_state[0].count) for s in young.inner_states.values()] == [3, 0]
    _, young = stepped(both, 2, young)
    new, _ = gt.migrate(young, gt.adam(0.1), SMALL)
    assert new[0].count.tolist() == [5, 2, 5]


def test_an_aged_state_runs_through_resets_and_skips():
    for tx in (
        gt.reset_every(gt.adam(0.1), 2),
        gt.lookahead(gt.adam(0.1), 2, 0.5, reset_state=True),
        gt.apply_if_finite(gt.adam(0.1), 3),
    ):
        state = gt.reset(tx, stepped(tx, 1)[1], SMALL, "b")
        _, state = jax.jit(lambda s, tx=tx: stepped(tx, 3, s))(state)
        assert gt.tree.get(state, "0.count").shape == (3,)


def test_reset_in_a_compiled_loop():
    tx = gt.scale_by_adam()
    state = jax.lax.fori_loop(0, 3, lambda i, s: gt.reset(tx, s, SMALL, "b", own_age=False), stepped(tx, 3)[1])
    assert int(state.count) == 3 and float(jnp.sum(state.nu["b"])) == 0


def test_a_count_of_another_shape_is_an_error():
    tx = gt.scale_by_adam()
    state = tx.init(SMALL)._replace(count=jnp.zeros(2, jnp.int32))
    with pytest.raises(ValueError, match=r"scale_by_adam: count must be a scalar or have an entry for each of 3 param"):
        tx.update(GRADS, state, SMALL)
