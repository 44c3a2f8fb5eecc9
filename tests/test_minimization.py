# SPDX-License-Identifier: Apache-2.0
"""`minimize`: against scipy's L-BFGS-B on classic problems, with bounds too; what it returns, counts and refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.classic import PROBLEMS

VALUE_TOL, TOL = 2.22e-9, 1e-5  # scipy's defaults
X = jnp.asarray([-1.2, 1.0])

SHORT_OF_THE_MINIMUM = {"powell_badly_scaled", "jennrich_sampson"}
"""Where scipy gives up at a value that is higher; there, the evaluations until that value are compared."""


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def by_scipy(f, start, bounds=None, **options):
    """scipy's result; `nfev` are the calls with which it evaluates value and gradient."""
    import scipy.optimize

    value_and_grad = jax.jit(jax.value_and_grad(f))

    def evaluate(x):
        value, grad = value_and_grad(x)
        return float(value), np.asarray(grad)

    return scipy.optimize.minimize(
        evaluate, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1_000, **options}
    )


# Against scipy.


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
@pytest.mark.usefixtures("x64")
def test_evaluations_and_value_are_those_of_scipy(problem, record_property):
    def f(x):
        return problem.value(jnp, x)

    progress = []
    start = problem.start.astype(float)
    np.testing.assert_allclose(problem.value(np, start), f(jnp.asarray(start)), rtol=1e-12)
    theirs = by_scipy(f, start)
    ours = gt.minimize(f, jnp.asarray(start), gt.lbfgs(), tol=TOL, value_tol=VALUE_TOL, callback=progress.append)
    jax.effects_barrier()
    reached = min(int(p.evaluations) for p in progress if p.value <= theirs.fun + 1e-6)
    record_property("evaluations", f"{int(ours.evaluations)}, scipy {theirs.nfev}, to scipy's value {reached}")
    assert ours.converged and ours.value <= theirs.fun + 1e-6
    assert reached <= 1.5 * theirs.nfev
    if problem.name in SHORT_OF_THE_MINIMUM:
        assert ours.value < theirs.fun - 0.1
    else:
        assert int(ours.evaluations) <= 1.5 * theirs.nfev


BOUNDED = [p for p in PROBLEMS if p.name in ("rosenbrock", "beale", "brown_dennis", "variably_dimensioned", "penalty")]


@pytest.mark.slow
@pytest.mark.parametrize("problem", BOUNDED, ids=lambda p: p.name)
@pytest.mark.usefixtures("x64")
def test_with_bounds_the_value_is_that_of_scipy(problem):
    def f(x):
        return problem.value(jnp, x)

    start = problem.start.astype(float)
    lower, upper = np.full(len(start), -1.5), np.where(np.arange(len(start)) % 2 == 0, 0.8, 10.0)
    theirs = by_scipy(f, np.clip(start, lower, upper), list(zip(lower, upper, strict=True)), gtol=1e-6, ftol=0)
    ours = gt.minimize(f, jnp.asarray(start), bounds=(lower, upper), tol=1e-6)
    assert ours.converged and ours.value <= theirs.fun + 1e-6 * max(1, abs(theirs.fun))
    assert np.all((ours.params >= lower) & (ours.params <= upper))
    assert int(ours.evaluations) <= 2 * theirs.nfev


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_many_bounds_at_once():
    """A convex quadratic over the positive orthant, whose solution the conditions of Karush, Kuhn and Tucker prove."""
    rng = np.random.default_rng(0)
    n = 100
    root = rng.normal(size=(n, n))
    a, b = jnp.asarray(root @ root.T / n + 0.05 * np.eye(n)), jnp.asarray(2 * rng.normal(size=n))
    done = gt.minimize(lambda x: 0.5 * x @ a @ x - b @ x, jnp.full(n, 0.5, float), bounds=(0.0, None), tol=1e-8)
    gradient = a @ done.params - b
    held = done.params == 0
    assert done.converged and 20 < held.sum() < 80
    assert gradient[held].min() >= 0 and np.abs(gradient[~held]).max() <= 1e-8
    assert done.evaluations < 100


# What it takes and returns.


@pytest.mark.slow
def test_result():
    done = gt.minimize(rosenbrock, X)
    np.testing.assert_allclose(done.params, 1, atol=1e-4)
    assert done.converged and done.grad_norm <= 1e-5 and done.aux is None
    assert done.value == rosenbrock(done.params)
    np.testing.assert_allclose(done.grad_norm, jnp.max(jnp.abs(jax.grad(rosenbrock)(done.params))), rtol=1e-3)
    assert jax.tree.structure(done.state) == jax.tree.structure(gt.lbfgs().init(X))


TXS = {
    "lbfgs": gt.lbfgs(),
    "adam": gt.adam(0.1),
    "backtracking": gt.chain(gt.scale(-1.0), gt.scale_by_backtracking_linesearch(20)),
    "backtracking with gradients": gt.chain(gt.scale(-1.0), gt.scale_by_backtracking_linesearch(20, store_grad=True)),
    "search inside": gt.chain(gt.scale(-1.0), gt.scale_by_zoom_linesearch(20), gt.scale(0.9)),
    "named": gt.named_chain(("rule", gt.scale(-1.0)), ("search", gt.scale_by_zoom_linesearch(20))),
    "scheduled": gt.chain(gt.scale(-1.0), gt.scale_by_zoom_linesearch(20, curv_rtol=gt.constant_schedule(0.5))),
}


@pytest.mark.slow
@pytest.mark.parametrize("tx", TXS.values(), ids=TXS)
@pytest.mark.parametrize("has_aux", [False, True])
def test_every_evaluation_is_counted(tx, has_aux):
    calls = []

    def f(x):
        jax.debug.callback(lambda: calls.append(1))
        value = jnp.sum((x - 0.3) ** 2 * jnp.asarray([1.0, 5.0]))
        return (value, 3 * x) if has_aux else value

    done = gt.minimize(f, X, tx, tol=1e-3, has_aux=has_aux)
    jax.effects_barrier()
    assert done.converged and done.evaluations == len(calls)
    np.testing.assert_allclose(done.params, 0.3, atol=1e-2)
    assert has_aux is (done.aux is not None)
    if has_aux:
        np.testing.assert_allclose(done.aux, 3 * done.params, rtol=1e-6)


@pytest.mark.slow
def test_trees():
    def f(t):
        return jnp.sum((t["a"] - 3) ** 2) + jnp.square(t["b"] - 1)

    params = {"a": jnp.zeros(3), "b": 2.0, "none": None}
    done = gt.minimize(f, params)
    np.testing.assert_allclose(done.params["a"], 3, rtol=1e-4)
    np.testing.assert_allclose(done.params["b"], 1, rtol=1e-4)
    assert done.params["none"] is None
    bounded = gt.minimize(f, params, bounds=({"a": None, "b": 1.5, "none": None}, 2.5))
    np.testing.assert_array_equal(bounded.params["a"], 2.5)
    np.testing.assert_array_equal(bounded.params["b"], 1.5)
    assert bounded.converged and bounded.grad_norm == 0


@pytest.mark.slow
def test_complex_parameters():
    target = jnp.asarray([1 + 2j, 3 - 1j], jnp.complex64)

    def f(z):
        return jnp.sum(4 * jnp.real(z - target) ** 2 + jnp.imag(z - target) ** 2)

    done = gt.minimize(f, jnp.zeros(2, jnp.complex64))
    assert done.converged
    np.testing.assert_allclose(done.params, target, rtol=1e-5)


@pytest.mark.slow
def test_projection():
    """Projected descent onto the unit disk, whose nearest point to (2, 1) is known."""

    def onto_disk(x):
        return x / jnp.maximum(1, jnp.linalg.norm(x))

    def f(x):
        return jnp.sum((x - jnp.asarray([2.0, 1.0])) ** 2)

    done = gt.minimize(f, X, gt.sgd(0.2), projection=onto_disk)
    assert done.converged
    np.testing.assert_allclose(done.params, np.asarray([2, 1]) / np.sqrt(5), atol=1e-4)
    with pytest.raises(ValueError, match="^minimize: a line search knows bounds, but no other projection"):
        gt.minimize(f, X, projection=onto_disk)


@pytest.mark.slow
def test_vmap_and_jit():
    starts, weights = jnp.stack([X, -X]), jnp.asarray([1.0, 2.0])

    def solve(x, weight):
        return gt.minimize(lambda x, weight: weight * rosenbrock(x), x, args=(weight,), max_steps=200)

    together = jax.jit(jax.vmap(solve))(starts, weights)
    assert together.converged.all()
    np.testing.assert_allclose(together.params, 1, atol=1e-4)
    for i in range(2):
        alone = solve(starts[i], weights[i])
        assert abs(int(alone.evaluations) - int(together.evaluations[i])) <= 5  # sums are rounded in another order


@pytest.mark.slow
def test_callback():
    seen = []
    done = gt.minimize(rosenbrock, X, callback=seen.append)
    jax.effects_barrier()
    assert sorted(int(p.steps) for p in seen) == list(range(1, int(done.steps) + 1))
    last = max(seen, key=lambda p: int(p.steps))
    assert last == gt.results.MinimizeProgress(done.steps, done.value, done.grad_norm, done.evaluations)


# How it ends.


def test_ends():
    assert gt.minimize(rosenbrock, jnp.ones(2)).steps == 0
    none = gt.minimize(rosenbrock, X, max_steps=0)
    assert none.steps == 0 and not none.converged and none.evaluations == 1
    few = gt.minimize(rosenbrock, X, max_steps=3)
    assert few.steps == 3 and not few.converged
    coarse = gt.minimize(rosenbrock, X, value_tol=0.1)
    assert coarse.converged and coarse.grad_norm > 1e-5 and coarse.steps < 20


@pytest.mark.slow
def test_values_that_are_not_finite_end_it_where_it_was():
    blown = gt.minimize(lambda x: jnp.sum(x**4), 100 * X, gt.sgd(1.0))
    assert not blown.converged and np.isfinite(blown.params).all() and np.isfinite(blown.value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(blown.state))
    nothing = jax.jit(lambda x: gt.minimize(rosenbrock, x))(X * jnp.nan)  # where the start is not known
    assert nothing.steps == 0 and not nothing.converged
    barrier = gt.minimize(lambda x: x[0] - 0.1 * jnp.log(x[0]) + (x[1] - 3) ** 2, jnp.asarray([5.0, 0.0]))
    np.testing.assert_allclose(barrier.params, [0.1, 3], atol=1e-3)


@pytest.mark.slow
def test_the_limit_of_precision_ends_it():
    """No step decreases the value any more, though the tolerance is not met."""
    done = gt.minimize(lambda x: jnp.sum(jnp.cos(x) * jnp.asarray([3.0, 7.0])) + 1e4, X, tol=0.0)
    assert done.steps < 100 and done.grad_norm < 0.1
    kink = gt.minimize(lambda x: jnp.sum(jnp.abs(x - 0.3)), X, max_steps=500)
    assert kink.evaluations < 2_000 and kink.value < 1e-3


def test_errors():
    cases = [
        (dict(tx=gt.adam), TypeError, "minimize: tx must be a transformation, got the factory adam"),
        (dict(max_steps=-1), ValueError, "minimize: max_steps must be a whole number >= 0, got -1"),
        (dict(max_steps=True), TypeError, "minimize: max_steps must be a whole number >= 0, got True"),
        (dict(max_steps=2.5), ValueError, "minimize: max_steps must be a whole number >= 0, got 2.5"),
        (dict(tol=1j), TypeError, "minimize: tol must be a number >= 0, got 1j"),
        (dict(tol=float("nan")), ValueError, "minimize: tol must be a number >= 0, got nan"),
        (dict(tol=-1.0), ValueError, "minimize: tol must be a number >= 0, got -1.0"),
        (dict(tol=jnp.ones(2)), ValueError, r"minimize: tol must be a scalar, got shape \(2,\)"),
        (dict(value_tol=float("nan")), ValueError, "minimize: value_tol must be a number >= 0, got nan"),
        (dict(bounds=(0, 1), projection=lambda p: p), ValueError, "minimize: give bounds or a projection, not both"),
        (dict(bounds=0), ValueError, r"minimize: bounds must be a pair \(lower, upper\), got int"),
        (dict(bounds=(jnp.ones(3), None)), ValueError, r"minimize: the bound at the root has shape \(3,\)"),
        (dict(bounds=(2.0, 1.0)), ValueError, "minimize: at the root a lower bound is above the upper bound"),
        (dict(has_aux=True), ValueError, "minimize: fn must return a scalar, or with has_aux=True a pair"),
        (dict(args=(1,)), TypeError, "positional argument"),
    ]
    for arguments, kind, message in cases:
        with pytest.raises(kind, match=message):
            gt.minimize(rosenbrock, X, **arguments)
    with pytest.raises(ValueError, match="fn must return a scalar"):
        gt.minimize(lambda x: (rosenbrock(x), x), X)
    with pytest.raises(ValueError, match="fn must return a scalar"):
        gt.minimize(lambda x: x, X)
    with pytest.raises(ValueError, match="complex parameters have no bounds"):
        gt.minimize(lambda z: jnp.sum(jnp.abs(z)), jnp.ones(2, jnp.complex64), bounds=(0, 1))


def test_starts_that_are_refused():
    def loss(p):
        return sum(jnp.sum(jnp.asarray(x, float) ** 2) for x in jax.tree.leaves(p))

    for start, path in ((3, "the root"), ({"x": jnp.ones(2), "n": jnp.arange(2)}, r"\['n'\]"), ([True], r"\[0\]")):
        with pytest.raises(TypeError, match=f"minimize: params must be floating-point numbers, got .* at {path}"):
            gt.minimize(loss, start)
    for number in (jnp.nan, jnp.inf):
        with pytest.raises(ValueError, match=r"minimize: params must be finite to start from, got .* at \['x'\]"):
            gt.minimize(loss, {"x": jnp.full(2, number), "y": jnp.ones(2)})
    result = gt.minimize(loss, {"x": jnp.ones(2), "none": None}, max_steps=20.0, tol=jnp.asarray(1e-3))
    assert result.converged and result.params["none"] is None
