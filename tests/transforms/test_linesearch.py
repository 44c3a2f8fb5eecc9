# SPDX-License-Identifier: Apache-2.0
"""The line searches: their conditions, evaluations, limits of precision, bad values, reuse of values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.classic import PROBLEMS

ZOOM = gt.scale_by_zoom_linesearch(20)
BACKTRACKING = gt.scale_by_backtracking_linesearch(40, store_grad=True)


def bowl(x):
    return 0.5 * jnp.sum(jnp.asarray([1.0, 10.0], x.dtype) * x**2)


def search(tx, f, x, u, state=None, **extra):
    """The update and the state of one search."""
    value, grad = jax.value_and_grad(f)(x)
    state = tx.init(x) if state is None else state
    return tx.update(u, state, x, value=value, grad=jnp.conj(grad), value_fn=f, **extra)


# The conditions.


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("curv_rtol", [0.9, 0.1, 1e-3])
@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e3])
def test_steps_satisfy_the_strong_wolfe_conditions(curv_rtol, size):
    tx = gt.scale_by_zoom_linesearch(40, curv_rtol=curv_rtol, approx_dec_rtol=None)

    @functools.partial(jax.jit, static_argnums=2)
    def step(x, u, f):
        return search(tx, f, x, u)

    for problem in PROBLEMS[::4]:

        def f(x, problem=problem):
            return problem.value(jnp, x)

        x = jnp.asarray(problem.start, jnp.float64)
        value, grad = jax.value_and_grad(f)(x)
        u = -size * grad / jnp.linalg.norm(grad)
        updates, state = step(x, u, f)
        s, new = state.learning_rate, x + updates
        np.testing.assert_allclose(updates, s * u, rtol=1e-14)
        slope, new_slope = grad @ u, jax.grad(f)(new) @ u
        assert f(new) <= value + 1e-4 * s * slope, problem.name
        assert abs(new_slope) <= curv_rtol * abs(slope), problem.name
        assert state.info.decrease_error == 0 and state.info.curvature_error == 0


@pytest.mark.usefixtures("x64")
def test_backtracking_is_its_formula():
    tx = gt.scale_by_backtracking_linesearch(20, 0.3, 0.7, 1.4, 2.0, 1e-3, 1e-2, store_grad=True)
    x, state, rate = jnp.asarray([3.0, -1.0]), None, 1.0
    for _ in range(8):
        value, grad = float(bowl(x)), np.asarray(jax.grad(bowl)(x))
        rate, trials = min(1.4 * rate, 2.0), 1
        while bowl(x - rate * grad) > value - 0.3 * rate * grad @ grad + 1e-2 * value + 1e-3:
            rate, trials = rate * 0.7, trials + 1
        updates, state = search(tx, bowl, x, -grad, state)
        np.testing.assert_allclose(updates, -rate * grad, rtol=1e-12)
        assert state.info.num_linesearch_steps == trials and state.info.decrease_error == 0
        x = x + updates
        np.testing.assert_allclose(state.value, bowl(x), rtol=1e-12)
        np.testing.assert_allclose(state.grad, jax.grad(bowl)(x), rtol=1e-12)


def test_the_info_says_by_how_much_the_conditions_are_missed():
    x = jnp.asarray([3.0, -1.0])
    tx = gt.scale_by_zoom_linesearch(1, curv_rtol=0.01, approx_dec_rtol=None)
    grad = jax.grad(bowl)(x)
    updates, state = search(tx, bowl, x, -0.01 * grad)
    slope, new_slope = -0.01 * grad @ grad, -0.01 * jax.grad(bowl)(x + updates) @ grad
    assert state.info.decrease_error == 0 and state.info.num_linesearch_steps == 1
    np.testing.assert_allclose(state.info.curvature_error, -new_slope + 0.01 * slope, rtol=1e-5)


@pytest.mark.parametrize("tx", [ZOOM, BACKTRACKING], ids=["zoom", "backtracking"])
def test_evaluations_are_counted(tx):
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return bowl(x)

    x = jnp.asarray([3.0, -1.0])
    value, grad = jax.value_and_grad(bowl)(x)
    _, state = tx.update(-100 * grad, tx.init(x), x, value=value, grad=grad, value_fn=counted)
    jax.effects_barrier()
    assert len(calls) == state.info.num_linesearch_steps > 1
    assert gt.metrics(state)["num_linesearch_steps"] == len(calls)


def test_guesses():
    x, grad = jnp.asarray([3.0, -1.0]), jax.grad(bowl)(jnp.asarray([3.0, -1.0]))
    _, state = search(ZOOM, bowl, x, -1e-3 * grad)
    assert state.info.num_linesearch_steps > 1 and state.learning_rate > 10
    _, again = search(ZOOM, bowl, x, -1e-3 * grad, state)
    assert again.info.num_linesearch_steps == 1 and again.learning_rate == state.learning_rate
    one = ZOOM.replace(initial_guess_strategy="one")
    _, other = search(one, bowl, x, -1e-3 * grad, state)
    assert other.info.num_linesearch_steps == search(ZOOM, bowl, x, -1e-3 * grad)[1].info.num_linesearch_steps
    _, limited = search(gt.scale_by_zoom_linesearch(20, max_learning_rate=3.0), bowl, x, -1e-3 * grad)
    assert limited.learning_rate == 3 and limited.info.curvature_error > 0


# What cannot be evaluated, and what cannot be better.


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("tx", [ZOOM, BACKTRACKING], ids=["zoom", "backtracking"])
def test_values_that_are_not_finite_are_rejected(tx, bad):
    def walled(x):
        return jnp.where(x[0] < 0, bad, bowl(x))

    x = jnp.asarray([3.0, 4.0])
    updates, state = search(tx, walled, x, -10 * jax.grad(bowl)(x))
    new = x + updates
    assert new[0] >= 0 and walled(new) < walled(x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    np.testing.assert_allclose(state.value, walled(new), rtol=1e-5)


@pytest.mark.parametrize("tx", [ZOOM, BACKTRACKING], ids=["zoom", "backtracking"])
@pytest.mark.parametrize("case", ["ascent", "orthogonal", "no way", "nan update", "nan value"])
def test_a_search_that_finds_nothing_stays(tx, case):
    x = jnp.asarray([3.0, 4.0])
    value, grad = jax.value_and_grad(bowl)(x)
    u = {"ascent": grad, "orthogonal": jnp.zeros(2), "nan update": grad * jnp.nan}.get(case, -grad)
    at = value * jnp.nan if case == "nan value" else value

    def f(y):
        return jnp.where(jnp.all(y == x), value, jnp.nan) if case == "no way" else bowl(y)

    updates, state = tx.update(u, tx.init(x), x, value=at, grad=grad, value_fn=f)
    np.testing.assert_array_equal(updates, 0)
    assert state.info.num_linesearch_steps == 0 or case == "no way"
    np.testing.assert_array_equal(state.grad, grad)
    if case == "nan value":  # so it is evaluated anew
        assert not np.isfinite(state.value)
    else:
        assert state.value == value
        updates, _ = search(tx, bowl, x, -grad, state)
        assert bowl(x + updates) < value


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_the_precision_of_float32_ends_the_search(offset):
    """Near the minimum no decrease of the value can be seen: slopes decide, or the search ends where it began."""

    def f(x):
        return bowl(x) + jnp.float32(offset)

    x, state, tx = jnp.asarray([3.0, -4.0]), None, gt.scale_by_zoom_linesearch(20)
    for _ in range(60):
        updates, state = search(tx, f, x, -jax.grad(f)(x), state)
        x = x + updates
        assert np.isfinite(state.value) and np.isfinite(state.grad).all()
    assert jnp.max(jnp.abs(x)) < 1e-2 and f(x) <= jnp.float32(offset) + 1e-4


def test_strict_decrease_near_the_minimum():
    """Without the approximate condition, values that do not differ are no decrease."""
    tx = gt.scale_by_zoom_linesearch(20, approx_dec_rtol=None)

    def f(x):
        return bowl(x) + jnp.float32(1e6)

    x = jnp.asarray([1e-3, 1e-3])
    updates, state = search(tx, f, x, -jax.grad(f)(x))
    assert f(x + updates) <= f(x) and np.isfinite(state.value)


# Trees, dtypes, extra arguments.


def test_steps_in_scan_keep_types():
    tx = gt.chain(gt.scale(-1.0), gt.scale_by_zoom_linesearch(10))
    value_and_grad = gt.value_and_grad_from_state(bowl)

    def step(carry, _):
        x, state = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=bowl)
        return (gt.apply_updates(x, updates), state), value

    for dtype in ("float32", "bfloat16"):
        x = jnp.asarray([3.0, 4.0], dtype)
        (x, _), values = jax.lax.scan(step, (x, tx.init(x)), length=30)
        assert values[-1] < 1e-3 * values[0] and x.dtype == dtype


def test_trees_with_holes():
    def f(params):
        return bowl(params["w"]) + jnp.sum(params["held"] ** 2) * jnp.float32(2)

    params = {"w": jnp.asarray([3.0, 4.0]), "held": jnp.ones(2), "none": None, "n": jnp.asarray(3)}
    u = {"w": -params["w"], "held": None, "none": None, "n": None}
    grad = {"w": jax.grad(bowl)(params["w"]), "held": None, "none": None, "n": None}
    for tx in (ZOOM, BACKTRACKING):
        state = tx.init(params)
        updates, new = tx.update(u, state, params, value=f(params), grad=grad, value_fn=f)
        assert updates["held"] is None and updates["n"] is None and new.grad["n"] is None
        assert jax.tree.structure(new) == jax.tree.structure(state)
        np.testing.assert_array_equal(new.grad["held"], [4, 4])


@pytest.mark.slow
@pytest.mark.parametrize("tx", [ZOOM, BACKTRACKING], ids=["zoom", "backtracking"])
def test_complex_parameters(tx):
    target = jnp.asarray([1 + 2j, 3 - 1j], jnp.complex64)

    def f(z):
        return jnp.sum(jnp.abs(z - target) ** 2)

    z, value_and_grad = jnp.zeros(2, jnp.complex64), gt.value_and_grad_from_state(f)
    state = tx.init(z)
    for _ in range(12):
        value, grad = value_and_grad(z, state=state)
        steepest = jnp.conj(grad)
        updates, state = tx.update(-steepest, state, z, value=value, grad=steepest, value_fn=f)
        z = gt.apply_updates(z, updates)
    np.testing.assert_allclose(z, target, atol=1e-2)


def test_bounds_project_the_line():
    x, u = jnp.asarray([3.0, 4.0]), jnp.asarray([-30.0, -40.0])
    bounds = (jnp.asarray([1.0, -9.0]), jnp.asarray([9.0, 9.0]))
    for tx in (ZOOM, BACKTRACKING):
        updates, state = search(tx, bowl, x, u, bounds=bounds)
        new = x + updates
        assert new[0] >= 1 and bowl(new) < bowl(x)
        np.testing.assert_allclose(state.value, bowl(new), rtol=1e-5)
        np.testing.assert_allclose(state.grad, jax.grad(bowl)(new), rtol=1e-5)  # that of value_fn, at the bound too
    at = jnp.asarray([1.0, 4.0])
    updates, _ = search(ZOOM, bowl, at, -jax.grad(bowl)(at), bounds=bounds)
    assert updates[0] == 0 and updates[1] < 0


def test_value_fn_gets_the_other_arguments():
    def f(x, data, *, weight=1.0):
        return weight * jnp.sum((x - data) ** 2)

    x, given = jnp.zeros(2), {"data": jnp.asarray([1.0, 2.0]), "weight": 3.0}
    value_and_grad = gt.value_and_grad_from_state(f)
    state = ZOOM.init(x)
    value, grad = value_and_grad(x, given["data"], weight=3.0, state=state)
    assert value == 15
    updates, state = ZOOM.update(-grad, state, x, value=value, grad=grad, value_fn=f, **given)
    x = x + updates
    np.testing.assert_allclose(state.value, f(x, **given), rtol=1e-5)
    again = value_and_grad(x, given["data"], weight=3.0, state=state)
    assert again[0] == state.value and again[1] is not None


def test_arguments_that_value_fn_does_not_take_are_for_other_stages():
    x, seen = jnp.ones(2), []
    given = dict(value=bowl(x), grad=x, data=1, other=2)
    for value_fn in (
        lambda p: seen.append({}) or bowl(p),
        lambda p, data=None: seen.append({"data": data}) or bowl(p),
        lambda p, **rest: seen.append(rest) or bowl(p),
    ):
        ZOOM.update(x, ZOOM.init(x), x, value_fn=value_fn, **given)
    assert {frozenset(x) for x in seen} == {frozenset(), frozenset({"data"}), frozenset({"data", "other"})}


def test_of_several_searches_in_a_chain_the_last_is_read():
    tx, x = gt.chain(gt.scale(-1.0), ZOOM, gt.scale(0.5), BACKTRACKING), jnp.asarray([3.0, 4.0])
    value, grad = jax.value_and_grad(bowl)(x)
    updates, state = tx.update(grad, tx.init(x), x, value=value, grad=grad, value_fn=bowl)
    assert state[1].value != state[3].value
    value, grad = gt.value_and_grad_from_state(lambda p: 2 * bowl(p))(x + updates, state=state)
    np.testing.assert_allclose(value, bowl(x + updates), rtol=1e-6)
    np.testing.assert_allclose(grad, jax.grad(bowl)(x + updates), rtol=1e-6)


def test_reuse_evaluates_nothing():
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return bowl(x)

    tx, x = gt.lbfgs(), jnp.asarray([3.0, 4.0])
    value_and_grad = jax.jit(gt.value_and_grad_from_state(counted))
    state = tx.init(x)
    value, grad = value_and_grad(x, state=state)
    updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=bowl)
    x = gt.apply_updates(x, updates)
    value, grad = value_and_grad(x, state=state)
    jax.effects_barrier()
    assert len(calls) == 1
    np.testing.assert_allclose((value, *grad), (bowl(x), *jax.grad(bowl)(x)), rtol=1e-6)


def test_errors():
    x = jnp.ones(2)
    for tx in (ZOOM, BACKTRACKING):
        name, state = tx.factory.name, tx.init(x)
        with pytest.raises(ValueError, match=rf"^{name}: update needs value, grad, value_fn: call update\("):
            tx.update(x, state, x)
        with pytest.raises(ValueError, match=rf"^{name}: update needs the parameters: call"):
            tx.update(x, state, value=bowl(x), grad=x, value_fn=bowl)
        with pytest.raises(ValueError, match=rf"^{name}: value must be a scalar, got shape \(2,\)"):
            tx.update(x, state, x, value=x, grad=x, value_fn=bowl)
        with pytest.raises(TypeError, match=rf"^{name}: state must be the ScaleBy"):
            tx.update(x, x, state, value=bowl(x), grad=x, value_fn=bowl)
        with pytest.raises(ValueError, match=rf"^{name}: bounds must be a pair"):
            tx.update(x, state, x, value=bowl(x), grad=x, value_fn=bowl, bounds=3)
    read = gt.value_and_grad_from_state(bowl)
    for tx in (gt.adam(0.1), gt.scale_by_backtracking_linesearch(3), gt.partition({"a": ZOOM, "b": ZOOM}, "a")):
        with pytest.raises(ValueError, match="^value_and_grad_from_state: the state must have one stage that keeps"):
            read(x, state=tx.init(x))


def test_verbose_says_what_was_found(capfd):
    x = jnp.ones(2)
    for tx in (ZOOM.replace(verbose=True), BACKTRACKING.replace(verbose=True)):
        search(tx, bowl, x, -0.1 * x)
        jax.effects_barrier()
        assert capfd.readouterr().out.startswith(f"{tx.factory.name}: step 1")
