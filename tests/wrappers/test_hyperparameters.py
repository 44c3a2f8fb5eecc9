# SPDX-License-Identifier: Apache-2.0
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import inject_hyperparams
from gradtx.testing import check_contract

PARAMS = {"w": jnp.full((2, 2), 0.5, jnp.float32), "b": jnp.ones(2, jnp.float32)}
GRADS = jax.tree.map(lambda p: p + jnp.float32(0.25), PARAMS)
RATE = gradtx.linear_schedule(1.0, 0.0, 10)
DECAY = gradtx.linear_schedule(0.9, 0.8, 10)


def run(tx, steps=3, state=None, params=PARAMS, grads=GRADS, **extra):
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        updates, state = tx.update(grads, state, params, **extra)
    return updates, state


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


def close(a, b, rtol=1e-4):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol), a, b)


@pytest.mark.parametrize("factory", [gradtx.adamw, optax.adamw])
@pytest.mark.parametrize("rate", [0.1, RATE])
@pytest.mark.usefixtures("standard_promotion")
def test_it_is_the_transformation(factory, rate):
    updates, state = run(inject_hyperparams(factory)(rate, b1=0.8))
    plain, plain_state = run(factory(rate, b1=0.8))
    close(updates, plain)
    close(state.inner_state[0], plain_state[0])


def layout(state):
    return [(jax.tree_util.keystr(k), x.shape, x.dtype) for k, x in jax.tree_util.tree_leaves_with_path(state)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("rate", [0.01, RATE])
@pytest.mark.usefixtures("standard_promotion")
def test_numbers_and_state_are_optaxs(rate, dtype):
    with jax.enable_x64(dtype is jnp.float64):
        params = jax.tree.map(lambda p: jnp.asarray(p, dtype), PARAMS)
        ours, theirs = inject_hyperparams(gradtx.adamw)(rate), optax.inject_hyperparams(optax.adamw)(rate)
        updates, state = run(ours, params=params, grads=params)
        expected, their_state = run(theirs, params=params, grads=params)
        assert layout(state) == layout(their_state)
        tolerance = 2e-6 if dtype is jnp.float32 else 1e-7  # optax's schedules are in float32
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance), updates, expected)
        assert ours.update(params, their_state, params)[1].count == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: inject_hyperparams(gradtx.adamw)(0.1, b1=DECAY, weight_decay=0.1),
        lambda: inject_hyperparams(gradtx.sgd, "momentum")(RATE, momentum=0.9),
        lambda: inject_hyperparams(optax.sgd)(0.1),
        lambda: gradtx.chain(gradtx.clip(1.0), inject_hyperparams(gradtx.scale_by_lr)(RATE)),
    ],
)
@pytest.mark.usefixtures("standard_promotion")
def test_contract(make):
    check_contract(make(), PARAMS)


@pytest.mark.parametrize("factory", [gradtx.sgd, optax.sgd])
def test_assigned_values_hold_from_the_next_update_on(factory):
    tx = inject_hyperparams(factory)(0.5)
    state = tx.init(PARAMS)
    assert type(state.hyperparams) is dict
    for value in (1e-4, np.float64(0.25), jnp.float32(0.125), 2, jnp.bfloat16(0.5)):
        before = types(tx.init(PARAMS))
        state.hyperparams["learning_rate"] = value
        updates, state = jax.jit(tx.update)(GRADS, state, PARAMS)
        close(updates, jax.tree.map(lambda g, v=value: -jnp.float32(v) * g, GRADS))
        assert types(state) == before


def test_an_update_leaves_the_state_before_as_it_was():
    tx = inject_hyperparams(gradtx.sgd)(RATE)
    state = tx.init(PARAMS)
    _, new = tx.update(GRADS, state, PARAMS)
    assert new.hyperparams is not state.hyperparams


def test_scan():
    tx = inject_hyperparams(gradtx.adam)(RATE)

    def step(state, _):
        _, state = tx.update(GRADS, state, PARAMS)
        return state, gradtx.metrics(state)

    _, seen = jax.lax.scan(step, tx.init(PARAMS), length=3)
    np.testing.assert_allclose(seen["learning_rate"], [1.0, 0.9, 0.8], rtol=1e-6)


def test_a_population_of_rates():
    tx = inject_hyperparams(gradtx.sgd)(0.0)
    rates = jnp.array([0.5, 2.0])
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate"] = rates
    axes = jax.tree.map(lambda _: None, state)
    axes.hyperparams["learning_rate"] = 0
    updates, _ = jax.vmap(tx.update, in_axes=(None, axes))(GRADS, state)
    np.testing.assert_allclose(updates["w"], -np.multiply.outer(rates, GRADS["w"]))
    states = jax.vmap(lambda rate: inject_hyperparams(gradtx.sgd)(rate).init(PARAMS))(rates)
    np.testing.assert_array_equal(states.hyperparams["learning_rate"], rates)


def test_one_trace_for_all_values():
    tx, traces = inject_hyperparams(gradtx.adam)(0.1), []

    @jax.jit
    def step(state):
        traces.append(1)
        return tx.update(GRADS, state, PARAMS)[1]

    state = tx.init(PARAMS)
    for rate in (0.1, 0.2, 0.3):
        state.hyperparams["learning_rate"] = jnp.float32(rate)
        state = step(state)
    assert len(traces) == 1


def test_the_step_is_counted_and_can_be_set():
    _, state = run(inject_hyperparams(gradtx.sgd)(RATE), 3)
    assert int(state.count) == 3
    updates, state = run(inject_hyperparams(gradtx.sgd)(RATE), 1, gradtx.restart(state, 6))
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.4, rtol=1e-6)
    assert int(state.count) == int(state.hyperparams_states["learning_rate"].count) == 7


def test_schedules_of_an_inner_wrapper_are_metrics_too():
    tx = inject_hyperparams(lambda decay: gradtx.chain(gradtx.sgd(RATE), gradtx.add_decayed_weights(decay)))(0.1)
    _, state = run(tx, 2)
    assert set(gradtx.metrics(state, tx)) == {"decay", "learning_rate"}


class FallsWithTheLoss(gradtx.schedules.StatefulSchedule):
    def init(self):
        return jnp.float32(8.0)

    def update(self, state, *, value, **extra):
        return jnp.minimum(state, value)

    def __call__(self, state, **extra):
        return jnp.float32(0.5) * state


def test_stateful_schedules_see_the_extra_arguments():
    tx = inject_hyperparams(gradtx.sgd)(FallsWithTheLoss())
    _, state = run(tx, 1, value=jnp.float32(3.0))
    assert (state.hyperparams["learning_rate"], state.hyperparams_states["learning_rate"]) == (4.0, 3.0)
    updates, _ = run(tx, 1, state, value=jnp.float32(5.0))
    close(updates, jax.tree.map(lambda g: -1.5 * g, GRADS))
    theirs = inject_hyperparams(gradtx.sgd)(optax.schedules.WrappedSchedule(optax.constant_schedule(0.5)))
    close(run(theirs)[0], jax.tree.map(lambda g: -0.5 * g, GRADS))


def with_module(rate, module):
    assert not isinstance(module, jax.Array)
    return gradtx.sgd(rate)


def test_modules_are_no_schedules_unless_wrapped():
    import equinox as eqx

    class Module(eqx.Module):
        value: jax.Array

        def __call__(self, count):
            return self.value

    module = Module(jnp.float32(0.5))
    state = inject_hyperparams(with_module)(0.1, module).init(PARAMS)
    assert set(state.hyperparams) == {"rate"}
    wrapped = inject_hyperparams(lambda rate: gradtx.sgd(rate))(gradtx.schedules.WrappedSchedule(module))
    close(run(wrapped)[0], jax.tree.map(lambda g: -0.5 * g, GRADS))
    # Where the factory declares a number, a module can only be a schedule.
    close(run(inject_hyperparams(gradtx.sgd)(module))[0], jax.tree.map(lambda g: -0.5 * g, GRADS))


def test_what_is_no_hyperparameter_is_handed_on():
    tx = inject_hyperparams(gradtx.adamw)(
        0.1, nesterov=True, mu_dtype=jnp.bfloat16, mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree)
    )
    state = tx.init(PARAMS)
    assert set(state.hyperparams) == {"learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay"}
    assert state.inner_state[0].mu["w"].dtype == jnp.bfloat16
    assert "b1" not in inject_hyperparams(gradtx.adamw, "b1")(0.1).init(PARAMS).hyperparams
    assert "b1" not in inject_hyperparams(optax.adamw, ("b1", "b2"))(0.1).init(PARAMS).hyperparams


def with_options(rate, *stages, seed=0, **options):
    assert jnp.issubdtype(jnp.result_type(seed), jnp.integer)
    return gradtx.chain(*stages, gradtx.adam(rate, **options))


def test_all_kinds_of_parameters_of_a_factory_of_your_own():
    tx = inject_hyperparams(with_options)(0.1, gradtx.clip(1.0), seed=3, b1=DECAY, eps=1e-3)
    _, state = run(tx)
    assert set(state.hyperparams) == {"rate", "seed", "b1", "eps"}
    assert state.hyperparams["seed"].dtype == jnp.int32 and not state.hyperparams["seed"].weak_type
    np.testing.assert_allclose(state.hyperparams["b1"], 0.88, rtol=1e-6)


def test_arrays_of_the_caller_are_copied():
    rate = jnp.float32(0.5)
    state = inject_hyperparams(gradtx.sgd)(rate).init(PARAMS)
    jax.jit(lambda s: s, donate_argnums=0)(state)
    assert float(rate) == 0.5


def test_it_is_a_value():
    make = lambda: inject_hyperparams(gradtx.adamw, "b1")(0.1, b1=0.8, weight_decay=RATE)  # noqa: E731  # to call it twice
    tx = make()
    assert repr(tx) == "inject_hyperparams(adamw, ('b1',))(0.1, b1=0.8, weight_decay=linear_schedule(1.0, 0.0, 10))"
    assert tx == make() and hash(tx) == hash(make()) and pickle.loads(pickle.dumps(tx)) == tx
    assert tx != inject_hyperparams(gradtx.adamw, "b1")(0.2, b1=0.8, weight_decay=RATE)
    assert repr(inject_hyperparams(optax.sgd, (), jnp.float32)(RATE)).startswith(
        "inject_hyperparams(sgd, (), 'float32')("
    )
    assert inject_hyperparams(gradtx.sgd).__name__ == "sgd" and not hasattr(inject_hyperparams(gradtx.sgd), "factory")


def test_errors():
    with pytest.raises(TypeError, match="inject_hyperparams: inner_factory must be a function, got"):
        inject_hyperparams(gradtx.sgd(0.1))
    with pytest.raises(ValueError, match="static_args has 'rate', which sgd does not take; it takes"):
        inject_hyperparams(gradtx.sgd, "rate")
    with pytest.raises(ValueError, match="hyperparam_dtype must be a floating dtype, got int32"):
        inject_hyperparams(gradtx.sgd, hyperparam_dtype=jnp.int32)
    with pytest.raises(ValueError, match=r"adamw: b1 must be in \[0, 1\), got 1.5"):
        inject_hyperparams(gradtx.adamw)(0.1, b1=1.5)
    with pytest.raises(TypeError, match=r"inject_hyperparams\(sgd\): missing a required argument: 'learning_rate'"):
        inject_hyperparams(gradtx.sgd)()
    with pytest.raises(TypeError, match="mask: the schedule .* must return a real number, .* name it in static_args"):
        inject_hyperparams(optax.adamw)(0.1, mask=lambda tree: {"w": True, "b": False}).init(PARAMS)
    tx = inject_hyperparams(gradtx.sgd)(0.1)
    state = tx.init(PARAMS)
    with pytest.raises(TypeError, match=r"state must be the InjectStatefulHyperparamsState .* the order is"):
        tx.update(GRADS, PARAMS, state)
    state.hyperparams["lr"] = 0.5
    with pytest.raises(ValueError, match=r"must have the keys \['learning_rate'\], got \['learning_rate', 'lr'\]"):
        tx.update(GRADS, state, PARAMS)
    for name in ("init", "update", "__call__"):
        with pytest.raises(NotImplementedError, match="StatefulSchedule: a stateful schedule needs"):
            getattr(gradtx.schedules.StatefulSchedule(), name)(*([] if name == "init" else [None]))
    with pytest.raises(TypeError, match="WrappedSchedule: schedule_fn must be a function of the step, got 0.1"):
        gradtx.schedules.WrappedSchedule(0.1)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(TypeError, match="the result must be a transformation"):
        inject_hyperparams(lambda rate: rate)(0.1).init(PARAMS)


@pytest.mark.usefixtures("x64")
def test_double_precision():
    tx = inject_hyperparams(gradtx.adamw)(RATE, b2=0.999)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
    _, state = run(tx, params=params, grads=params)
    assert {x.dtype for x in state.hyperparams.values()} == {np.dtype(np.float64)}
    narrow = inject_hyperparams(gradtx.adamw, (), jnp.float32)(RATE)
    assert {x.dtype for x in run(narrow)[1].hyperparams.values()} == {np.dtype(np.float32)}
