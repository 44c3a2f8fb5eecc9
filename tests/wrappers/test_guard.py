# SPDX-License-Identifier: Apache-2.0
"""A guarded run is the run over the steps that were taken, whatever happened in between."""

import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as Spec

import gradtx as gt
from gradtx.skipping import SkipReason
from gradtx.testing import check_contract

PARAMS = {"w": jnp.asarray([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.zeros(2)}
GRADS = {"w": jnp.asarray([[0.3, -0.4], [0.0, 1.2]]), "b": jnp.asarray([0.0, 0.0])}  # of norm 1.3
NAN, INF = float("nan"), float("inf")


def times(factor, grads=GRADS):
    return jax.tree.map(lambda g: g * jnp.asarray(factor, g.dtype), grads)


def states(tx, factors, **extra):
    """The state after each step with the gradients times a factor."""
    state, found = tx.init(PARAMS), []
    for factor in factors:
        updates, state = tx.update(times(factor), state, PARAMS, **extra)
        found.append((updates, state))
    return found


def assert_finite(tree):
    for x in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(x, np.float64)).all()


# A training with accidents.

STEPS, ACCIDENTS = 200, {40: NAN, 41: INF, 70: 50.0, 71: -400.0, 120: NAN, 121: NAN, 150: 1e30, 199: 80.0}
DATA = np.random.default_rng(3).normal(size=(STEPS, 2, 2)).astype(np.float32)


def slope(params, x):
    return {"w": params["w"] * 0.3 + x, "b": params["b"] - jnp.sum(x, 0)}


def accident(factor, g):
    """What a bad batch makes of a gradient: a factor, or a single element that is not finite."""
    if np.isfinite(factor):
        return g * factor
    return jnp.ravel(g).at[0].set(factor).reshape(g.shape)


def train(tx, steps, accidents, jit):
    """The end of a loop over the data of some steps, those in `accidents` spoilt."""
    step = jax.jit(tx.update) if jit else tx.update
    params, state = PARAMS, tx.init(PARAMS)
    for i in steps:
        g = slope(params, DATA[i])
        if i in accidents:
            g = jax.tree.map(lambda g, i=i: accident(accidents[i], g), g)
        updates, state = step(g, state, params)
        params = gt.apply_updates(params, updates)
    return params, state


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True])
def test_a_training_with_accidents_is_bit_for_bit_the_training_without(jit):
    inner = gt.adamw(0.05, weight_decay=0.01)
    tx = gt.guard(inner, gt.skipping.norm_spike(window=32, z=6.0, warmup=16))
    params, state = train(tx, range(STEPS), ACCIDENTS, jit)
    calm = [i for i in range(STEPS) if i not in ACCIDENTS]
    want, want_state = train(inner, calm, {}, jit)
    chex.assert_trees_all_equal(params, want)
    chex.assert_trees_all_equal(state.inner_state, want_state)
    assert int(state.skipped) == len(ACCIDENTS)
    chex.assert_trees_all_equal(state.rules, train(tx, calm, {}, jit)[1].rules)  # nor has the window seen any of them
    assert_finite(state)


def test_a_training_inside_scan():
    tx = gt.guard(gt.adamw(0.05), gt.skipping.norm_spike(window=32, z=6.0, warmup=16))

    def run(steps, factors):
        def step(carry, inputs):
            params, state = carry
            x, factor = inputs
            updates, state = tx.update(times(factor, slope(params, x)), state, params)
            return (gt.apply_updates(params, updates), state), gt.metrics(state)["last_reason"]

        factors = jnp.asarray([factors.get(i, 1.0) for i in steps], jnp.float32)
        return jax.jit(lambda c, x: jax.lax.scan(step, c, x))((PARAMS, tx.init(PARAMS)), (DATA[steps], factors))

    (params, state), reasons = run(np.arange(STEPS), ACCIDENTS)
    (want, calm), none = run(np.array([i for i in range(STEPS) if i not in ACCIDENTS]), {})
    chex.assert_trees_all_equal(params, want)
    chex.assert_trees_all_equal((state.inner_state, state.rules), (calm.inner_state, calm.rules))
    assert set(none.tolist()) == {SkipReason.NONE}
    # Norms of 1e30 overflow in float32.
    assert [int(reasons[i]) for i in (39, 40, 41, 70, 120, 150, 199)] == [0, 1, 1, 2, 1, 1, 2]


# What a step that is left out does, and what is known of it.


def test_inner_does_not_run():
    runs = []

    def update(updates, state, params=None):
        jax.debug.callback(lambda: runs.append(None))
        return updates, state

    tx = gt.guard(gt.GradientTransformation(lambda params: (), update))
    step, state = jax.jit(tx.update), tx.init(PARAMS)
    for factor in (1.0, NAN, NAN, 2.0):
        updates, state = step(times(factor), state, PARAMS)
    jax.effects_barrier()
    assert len(runs) == 2


def test_updates_are_zero_and_the_inner_state_stays():
    tx = gt.guard(gt.adam(0.1))
    (_, before), (updates, after) = states(tx, [1.0, INF])
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
    chex.assert_trees_all_equal(after.inner_state, before.inner_state)


def test_metrics():
    tx = gt.chain(gt.identity(), gt.guard(gt.sgd(0.1), gt.skipping.skip_when(lambda step: step.norm > 5, reason=77)))
    seen = [gt.metrics(state) for _, state in states(tx, [1.0, NAN, 10.0, 2.0])]
    column = {n: [round(float(m[n]), 3) for m in seen] for n in ("skipped", "consecutive_skips", "last_reason")}
    assert column == {"skipped": [0, 1, 2, 2], "consecutive_skips": [0, 1, 2, 0], "last_reason": [0, 1, 77, 77]}
    # The norm of a spike is worth knowing, and NaN would stay in the state.
    np.testing.assert_allclose([float(m["grad_norm"]) for m in seen], [1.3, 1.3, 13.0, 2.6], rtol=1e-6)


def test_a_window_publishes_its_statistics():
    tx = gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(4, warmup=4))
    metrics = gt.metrics(states(tx, [9.0, 1.0, 2.0, 3.0, 4.0])[-1][1])
    np.testing.assert_allclose(metrics["mean"], 1.3 * 2.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["std"], 1.3 * np.std([1, 2, 3, 4]), rtol=1e-6)


@pytest.mark.parametrize("value", [NAN, INF, jnp.float16(INF)])
def test_a_loss_that_is_not_finite(value):
    tx = gt.guard(gt.sgd(0.1))
    (updates, state) = states(tx, [1.0], value=value)[0]
    assert int(state.last_reason) == SkipReason.NON_FINITE
    assert not np.any(updates["w"])


@pytest.mark.parametrize("element", [NAN, INF, -INF, 1e25])
def test_a_single_element(element):
    grads = {"w": GRADS["w"].at[1, 1].set(element), "b": GRADS["b"]}
    tx = gt.guard(gt.adam(0.1))
    updates, state = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert_finite((updates, state))
    assert int(state.skipped) == 1


# Rules.


def norms_refused(tx, factors):
    return [i for i, (_, s) in enumerate(states(tx, factors)) if int(s.consecutive_skips) > 0]


@pytest.mark.slow
def test_norm_spike_against_the_formula():
    """In NumPy: the step is a spike if it lies more than z deviations above the mean of the last accepted ones."""
    rng = np.random.default_rng(0)
    factors = 1 + 0.1 * rng.normal(size=120)
    factors[[20, 50, 51, 90]] = [1.5, 3.0, 40.0, 1.45]
    window, refused = [], []
    for i, x in enumerate(factors * 1.3):
        last = np.array(window[-16:])
        if len(window) >= 8 and x > last.mean() + 3 * last.std():
            refused.append(i)
        else:
            window.append(x)
    assert {20, 50, 51, 90} <= set(refused)
    assert norms_refused(gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(16, 3.0, 8)), factors) == refused


def test_a_small_norm_is_no_spike_and_warmup_accepts_all():
    tx = gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(8, 3.0, warmup=4))
    assert norms_refused(tx, [1.0, 50.0, 1.1, 0.9, 0.0, 1.0]) == []


def test_loss_spike():
    tx = gt.guard(gt.sgd(0.1), gt.skipping.loss_spike(8, 3.0, warmup=4))
    state, seen = tx.init(PARAMS), []
    for loss in [-2.0, -2.1, -1.9, -2.0, 0.0, NAN, -9.0, -2.0]:
        _, state = tx.update(GRADS, state, PARAMS, value=jnp.asarray(loss, jnp.bfloat16))
        seen.append(int(state.last_reason) if int(state.consecutive_skips) else 0)
    assert seen == [0, 0, 0, 0, SkipReason.LOSS_SPIKE, SkipReason.NON_FINITE, 0, 0]
    with pytest.raises(ValueError, match="loss_spike: update needs value"):
        tx.update(GRADS, state, PARAMS)


def test_predicates_see_the_step():
    def predicate(step):
        assert step.params is PARAMS and set(step.extra) == {"value", "accuracy"}
        return (step.extra["accuracy"] < 0.5) & (step.value > 1) & (step.updates["w"][0, 0] > 0)

    tx = gt.guard(gt.sgd(0.1), gt.skipping.skip_when(predicate))
    for accuracy, skipped in ((0.6, 0), (0.4, 1)):
        _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS, value=2.0, accuracy=jnp.asarray(accuracy))
        assert int(state.skipped) == skipped


def test_the_first_rule_that_refuses_is_the_reason():
    tx = gt.guard(
        gt.sgd(0.1), gt.skipping.skip_when(lambda s: s.norm > 9, 7), gt.skipping.skip_when(lambda s: s.norm > 2, 8)
    )
    assert [int(s.last_reason) for _, s in states(tx, [1.0, 3.0, 30.0])] == [0, 8, 7]


@gt.skipping.guard_rule
def no_more_than_doubled(factor: gt.typing.Positive = 2.0):
    """A rule of one's own: with a state and a hyperparameter."""
    return gt.skipping.GuardRule(
        50,
        lambda step, largest: (largest > 0) & (step.norm > factor * largest),
        init=lambda: jnp.zeros([]),
        accept=lambda step, largest: jnp.maximum(largest, step.norm),
    )


@pytest.mark.slow
def test_a_rule_of_ones_own():
    tx = gt.guard(gt.sgd(0.1), no_more_than_doubled())
    assert norms_refused(tx, [1.0, 1.5, 3.5, 2.9, 5.9, 5.7]) == [2, 4]
    check_contract(tx, PARAMS)
    assert repr(tx.arguments["rules"][0]) == "no_more_than_doubled()"


def test_overruled_after_so_many_skips():
    """A level that stays is no spike: the rules begin anew with it. What is not finite is never taken."""
    tx = gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(8, 3.0, warmup=2), max_consecutive_skips=3)
    factors = [1.0, 1.1, 1.0, 1.1, 50.0, NAN, 51.0, NAN, 50.0, 51.0, 50.0, 51.0, 500.0]
    found = states(tx, factors)
    assert [int(s.consecutive_skips) for _, s in found] == [0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 1]
    window = found[-1][1].rules[0]
    assert int(window.filled) == 4
    np.testing.assert_allclose(window.values[-4:], 1.3 * np.array([50, 51, 50, 51]), rtol=1e-6)
    assert_finite(found)


@pytest.mark.parametrize("bound", [1, 3])
def test_so_many_steps_are_left_out(bound):
    tx = gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(8, 3.0, warmup=2), max_consecutive_skips=bound)
    assert norms_refused(tx, [1.0, 1.1, 1.0] + [50.0] * 6) == list(range(3, 3 + bound))


def test_without_a_bound_it_refuses_for_ever():
    tx = gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(8, 3.0, warmup=2), max_consecutive_skips=None)
    assert norms_refused(tx, [1.0, 1.1, 1.0] + [50.0] * 40) == list(range(3, 43))


# Under all transformations of JAX, with all dtypes.


@pytest.mark.slow
@pytest.mark.parametrize("inner", [gt.adam(0.1), optax.adam(0.1, eps=1e-3), optax.trace(0.9)])
@pytest.mark.parametrize(
    ("parameters", "gradients"),
    [(np.float32, np.float32), (jnp.bfloat16, np.float32), (np.float32, jnp.bfloat16), (np.float16, np.float16)],
)
@pytest.mark.usefixtures("standard_promotion")
def test_types_stay(inner, parameters, gradients):
    """Also those of a transformation that changes its own."""
    tx = gt.guard(inner, gt.skipping.norm_spike(4, warmup=1), gt.skipping.loss_spike(4, warmup=1))
    params, g = (jax.tree.map(lambda x, d=d: x.astype(d), t) for t, d in ((PARAMS, parameters), (GRADS, gradients)))
    state = tx.init(params)
    step = jax.jit(tx.update)
    for factor in (1.0, NAN, 1.0, 1000.0):
        updates, new = step(times(factor, g), state, params, value=jnp.asarray(1.0, gradients))
        un_jitted = tx.update(times(factor, g), state, params, value=jnp.asarray(1.0, gradients))
        for have in (new, un_jitted[1]):
            assert jax.tree.map(jax.typeof, have) == jax.tree.map(jax.typeof, state)
        assert jax.tree.map(jax.typeof, updates) == jax.tree.map(jax.typeof, un_jitted[0])
        assert_finite((updates, new))
        state = new
    assert int(state.skipped) == 2


@pytest.mark.slow
def test_a_population():
    """Of members with limits of their own, each of which skips for itself."""
    limits = jnp.asarray([1.0, 3.0, 30.0])

    def run(z, factors):
        tx = gt.guard(gt.adam(0.1), gt.skipping.norm_spike(8, z, warmup=4))

        def step(state, factor):
            updates, state = tx.update(times(factor), state, PARAMS)
            return state, updates

        return jax.lax.scan(step, tx.init(PARAMS), factors)

    factors = jnp.asarray([1.0, 1.2, 0.8, 1.0, 1.4, NAN, 1.0])
    together = jax.vmap(run, (0, None))(limits, factors)
    for i, z in enumerate(limits):
        alone = run(float(z), factors)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), together, alone)
    assert together[0].skipped.tolist() == [2, 1, 1]
    assert_finite(together)


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_shard_map_all_devices_decide_alike(check_vma):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    params, g = jnp.ones([16]), jnp.linspace(-1.0, 1.0, 16)
    rules = gt.skipping.norm_spike(8, 3.0, warmup=2), gt.skipping.loss_spike(8, 3.0, warmup=2)
    whole = gt.guard(gt.scale_by_adam(), *rules)
    split = gt.guard(gt.scale_by_adam(), *rules, axis_name="d")
    spread = jax.tree.map(lambda x: Spec("d") if x.shape == (16,) else Spec(), whole.init(params))

    @jax.jit
    @jax.shard_map(
        mesh=mesh,
        in_specs=(Spec("d"), spread, Spec("d"), Spec("d")),
        out_specs=(Spec("d"), spread),
        check_vma=check_vma,
    )
    def step(g, state, params, losses):
        return split.update(g, state, params, value=losses[0])

    state = want_state = whole.init(params)
    for i, spoil in enumerate([1.0, 1.1, 1.0, 30.0, NAN, 1.1]):
        grads = g.at[3].multiply(spoil)  # the spike and the NaN are on one device
        losses = jnp.full([8], 2.0).at[5].set(NAN if i == 5 else 2.0)
        updates, state = step(grads, state, params, losses)
        want, want_state = whole.update(grads, want_state, params, value=jnp.mean(losses))
        np.testing.assert_allclose(updates, want, rtol=1e-6)
    assert int(state.skipped) == int(want_state.skipped) == 3
    chex.assert_trees_all_close(state, want_state, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, lambda f: lambda x: jax.vmap(f)(x[None])[0]])
def test_derivatives_do_not_see_a_skipped_step(transform):
    def distance(make, factors):
        def of_rate(rate):
            tx = make(rate)
            params, state = PARAMS, tx.init(PARAMS)
            for factor in factors:
                updates, state = tx.update(times(factor), state, params)
                params = gt.apply_updates(params, updates)
            return jnp.sum(params["w"] ** 2)

        return transform(jax.grad(of_rate))(jnp.float32(0.1))

    guarded = distance(
        lambda rate: gt.guard(gt.adam(rate), gt.skipping.norm_spike(4, warmup=1)), [1.0, NAN, 0.9, 500.0]
    )
    np.testing.assert_allclose(guarded, distance(gt.adam, [1.0, 0.9]), rtol=1e-5)


@pytest.mark.slow
def test_on_an_explicit_mesh():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params = jax.device_put(jnp.ones([16]), NamedSharding(mesh, Spec("d")))
        tx = gt.guard(gt.adam(0.1), gt.skipping.norm_spike(4, warmup=1))
        state = tx.init(params)
        for factor in (1.0, NAN):
            updates, state = jax.jit(tx.update)(params * factor, state, params)
        assert jax.typeof(updates) == jax.typeof(params)
        assert int(state.skipped) == 1


# With other transformations, and as a value.


def test_extra_arguments_and_none_reach_inner():
    def update(updates, state, params=None, *, value):
        return jax.tree.map(lambda g: g * value, updates), state

    tx = gt.guard(gt.GradientTransformationExtraArgs(lambda params: (), update))
    grads = {"w": GRADS["w"], "b": None, "n": np.zeros(2, jax.dtypes.float0)}
    updates, _ = tx.update(grads, tx.init(PARAMS), None, value=3.0)
    np.testing.assert_allclose(updates["w"], 3 * GRADS["w"])
    assert updates["b"] is None and updates["n"] is None
    updates, _ = tx.update(times(NAN), tx.init(PARAMS), None, value=3.0)
    assert not np.any(updates["w"])


def test_evaluation_parameters_schedules_and_restart_go_through():
    rate = gt.linear_schedule(1.0, 0.0, 10)
    tx = gt.guard(gt.chain(gt.sgd(rate), gt.params_ema(0.5)), gt.skipping.norm_spike())
    state = states(tx, [1.0, NAN, 1.0])[-1][1]
    np.testing.assert_array_equal(gt.eval_params(state, PARAMS)["w"], gt.eval_params(state.inner_state, PARAMS)["w"])
    rates = [float(v) for n, v in gt.metrics(state, tx).items() if n.endswith("learning_rate")]
    np.testing.assert_allclose(rates, [0.9], rtol=1e-6)  # of two steps, not three
    again = gt.metrics(gt.restart(state, at=6), tx)
    np.testing.assert_allclose([v for n, v in again.items() if n.endswith("learning_rate")], [0.5], rtol=1e-6)


def test_complex_gradients():
    tx = gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(4, warmup=1))
    params = jnp.asarray([1.0 + 2.0j, 3.0])
    state = tx.init(params)
    for bad in (params, params.at[0].set(complex(0, NAN)), params * 100):
        updates, state = tx.update(bad, state, params)
    assert int(state.skipped) == 2 and updates.dtype == params.dtype


def test_rules_are_values():
    rule = gt.skipping.norm_spike(z=4.0)
    assert repr(rule) == "norm_spike(z=4.0)" and rule == gt.skipping.norm_spike(128, 4.0) != gt.skipping.loss_spike(
        z=4.0
    )
    assert jax.tree.leaves(gt.guard(gt.identity(), rule, gt.skipping.loss_spike())) == [4.0, 6.0]
    assert pickle.loads(pickle.dumps(rule)) == rule and hash(rule) == hash(gt.skipping.norm_spike(z=4.0))
    assert rule.replace(z=5.0).arguments["z"] == 5.0
    by_hand = gt.skipping.GuardRule(9, np.less)
    assert by_hand == gt.skipping.GuardRule(9, np.less) and pickle.loads(pickle.dumps(by_hand)) == by_hand
    assert gt.skipping.SkipReason(2).name == "NORM_SPIKE"


def test_bad_input():
    with pytest.raises(TypeError, match=r"guard: rules\[1\] must be a rule such as norm_spike\(\), got"):
        gt.guard(gt.sgd(0.1), gt.skipping.norm_spike(), gt.skipping.norm_spike)
    with pytest.raises(TypeError, match="guard: inner must be a transformation"):
        gt.guard(3.0)
    with pytest.raises(ValueError, match="norm_spike: warmup must be at most window, which is 8, got 32"):
        gt.skipping.norm_spike(8)
    with pytest.raises(ValueError, match="loss_spike: z must be a number > 0, got -1"):
        gt.skipping.loss_spike(z=-1.0)
    with pytest.raises(TypeError, match="norm_spike: z must be a number or an array"):
        gt.skipping.norm_spike(z=lambda step: 3.0)
    with pytest.raises(ValueError, match="GuardRule: reason must be at least 1, got 0"):
        gt.skipping.GuardRule(0, np.less)
    with pytest.raises(ValueError, match="skip_when: reason must be a whole number >= 1, got 0"):
        gt.skipping.skip_when(np.less, 0)
    tx = gt.guard(gt.sgd(0.1), gt.skipping.skip_when(lambda step: jnp.ones(3, bool)))
    with pytest.raises(ValueError, match=r"guard: skip_when\(.*\) must say one True or False for a step, got shape"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)
    with pytest.raises(TypeError, match="guard: state must be the GuardState"):
        tx.update(GRADS, PARAMS, tx.init(PARAMS))
    tx = gt.guard(gt.sgd(0.1))
    with pytest.raises(ValueError, match=r"guard: value must be a scalar, the loss of the step, got shape \(3,\)"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, value=jnp.ones(3))


def test_an_inner_state_that_changes_its_structure_is_an_error():
    growing = gt.GradientTransformation(lambda params: (), lambda u, state, params=None: (u, (*state, jnp.zeros([]))))
    tx = gt.guard(growing)
    with pytest.raises(ValueError, match="guard: the inner transformation returned a state of another structure"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)
