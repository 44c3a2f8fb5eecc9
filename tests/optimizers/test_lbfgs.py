# SPDX-License-Identifier: Apache-2.0
"""L-BFGS as a rule: against optax, its pairs, bounds, trees with holes, complex numbers. Its formula is elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt


def steep_valley(x):
    return (1 - x[0]) ** 2 + jnp.exp(x[1] - x[0]) + x[1] ** 2 + 0.1 * x[2] ** 4 + 20 * x[2] ** 2


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def run(tx, f, x, steps, apply=gt.apply_updates):
    """The points, and the last state."""
    state, points = tx.init(x), []
    update = jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(jax.grad(f)(x), state, x)
        x = apply(x, updates)
        points.append(x)
    return np.stack(points), state


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    ("f", "rate", "arguments"),
    [
        (steep_valley, 0.2, ()),
        (steep_valley, 0.2, (3,)),
        (steep_valley, 0.2, (4, False)),
        (rosenbrock, 0.1, ()),
        (rosenbrock, 0.1, (1,)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_iterates_and_states_are_those_of_optax(f, rate, arguments, dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray([0.5, -0.6, 0.7], dtype)
        ours, state = run(gt.chain(gt.scale_by_lbfgs(*arguments), gt.scale(-rate)), f, x, 25)
        theirs, their_state = run(optax.chain(optax.scale_by_lbfgs(*arguments), optax.scale(-rate)), f, x, 25)
        assert np.all(their_state[0].weights_memory > 0)  # only then is there nothing to leave out
        np.testing.assert_allclose(ours, theirs, rtol=1e-6 if dtype == "float32" else 1e-12, atol=1e-6)
        for a, b in zip(state[0], their_state[0], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-3 if dtype == "float32" else 1e-9, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_n_exact_searches_minimize_a_quadratic():
    """With exact searches, L-BFGS is the method of conjugate gradients (Nocedal and Wright, theorem 6.4)."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    a, b = jnp.asarray(root @ root.T + np.eye(6)), jnp.asarray(rng.normal(size=6))
    tx, x = gt.scale_by_lbfgs(), jnp.zeros(6)
    state = tx.init(x)
    for _ in range(6):
        g = a @ x - b
        u, state = tx.update(g, state, x)
        x = x - u * (g @ u) / (u @ a @ u)
    np.testing.assert_allclose(a @ x, b, atol=1e-9)


def test_pairs_without_positive_curvature_are_left_out():
    tx = gt.scale_by_lbfgs(3)
    state = tx.init(jnp.zeros(2))
    _, state = tx.update(jnp.asarray([1.0, 2.0]), state, jnp.zeros(2))
    u, state = tx.update(jnp.asarray([2.0, 3.0]), state, jnp.full(2, -1.0))  # <s, y> = -2
    np.testing.assert_allclose(u, np.asarray([2, 3]) / np.sqrt(13), rtol=1e-6)
    np.testing.assert_array_equal(state.weights_memory, 0)
    u, state = tx.update(jnp.asarray([1.0, 2.0]), state, jnp.full(2, -1.5))  # <s, y> = 1
    np.testing.assert_array_equal(state.weights_memory, [0, 1, 0])
    assert u @ jnp.asarray([1.0, 2.0]) > 0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_gradient_that_is_not_finite_is_forgotten(bad):
    tx, x = gt.scale_by_lbfgs(3), jnp.asarray([1.0, 2.0])
    state = tx.init(x)
    _, state = tx.update(x, state, x)
    u, after = tx.update(jnp.asarray([bad, 1.0]), state, 0.5 * x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    u, after = tx.update(0.25 * x, after, 0.25 * x)
    np.testing.assert_allclose(u, 0.25 * x, rtol=1e-6)  # the pair spans the bad step; the curvature is 1
    assert float(jnp.sum(after.weights_memory > 0)) == 1


def test_where_nothing_moved_the_pairs_are_forgotten():
    tx, x = gt.scale_by_lbfgs(3), jnp.asarray([1.0, 2.0])
    state = tx.init(x)
    for scale in (1.0, 0.5, 0.5):
        u, state = tx.update(jnp.asarray([4.0, 1.0]) * x * scale, state, x * scale)
    np.testing.assert_array_equal(state.weights_memory, 0)
    g = np.asarray([2.0, 1.0])
    np.testing.assert_allclose(u, g / np.linalg.norm(g), rtol=1e-6)


def test_gradients_whose_squares_overflow():
    tx, g = gt.scale_by_lbfgs(), jnp.asarray([3e30, 4e30])
    u, _ = tx.update(g, tx.init(g), jnp.zeros(2))
    np.testing.assert_allclose(u, [0.6, 0.8], rtol=1e-6)


def test_leaves_without_a_gradient_stay():
    tx = gt.scale_by_lbfgs(2)
    params = {"w": jnp.ones(3), "held": jnp.ones(2), "none": None, "n": jnp.asarray(3)}
    state = tx.init(params)
    for size in (1.0, 0.5):
        grads = {"w": size * jnp.ones(3), "held": None, "none": None, "n": None}
        u, new = tx.update(grads, state, params)
        assert u["held"] is None and u["n"] is None
        assert jax.tree.structure(new) == jax.tree.structure(state)
        np.testing.assert_array_equal(new.params["held"], 0)
        state, params = new, {**params, "w": params["w"] * size / 2}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_complex_parameter_is_two_real_ones():
    def of_real(x):
        return steep_valley(jnp.stack([x[0], x[1], x[2] + 0.1 * x[3]])) + x[3] ** 2

    def of_complex(z):
        return of_real(jnp.concatenate([jnp.real(z), jnp.imag(z)]))

    x = jnp.asarray([0.5, -0.6, 0.7, 0.8])
    points, _ = run(gt.lbfgs(0.2, 3, linesearch=None), of_real, x, 15)
    tx, z = gt.lbfgs(0.2, 3, linesearch=None), jax.lax.complex(x[:2], x[2:])
    state = tx.init(z)
    for point in points:
        updates, state = tx.update(jnp.conj(jax.grad(of_complex)(z)), state, z)
        z = gt.apply_updates(z, updates)
        np.testing.assert_allclose(jnp.concatenate([z.real, z.imag]), point, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_with_bounds_the_free_elements_are_a_problem_of_their_own():
    """What is held by a bound gets no update, and the others what L-BFGS gives them without it."""
    bounds = (jnp.asarray([-10.0, 0.5, -10.0]), None)
    tx, alone = gt.scale_by_lbfgs(4), gt.scale_by_lbfgs(4)
    x = jnp.asarray([0.5, 0.5, 0.7])
    state, state_alone = tx.init(x), alone.init(x[::2])
    for _ in range(8):
        g = jax.grad(steep_valley)(x)
        assert g[1] > 0
        u, state = tx.update(g, state, x, bounds=bounds)
        want, state_alone = alone.update(g[::2], state_alone, x[::2])
        assert u[1] == 0
        np.testing.assert_allclose(u[::2], want, rtol=1e-9)
        x = x - 0.3 * u


def test_errors():
    tx, x = gt.scale_by_lbfgs(), jnp.ones(2)
    with pytest.raises(ValueError, match="^scale_by_lbfgs: update needs the parameters"):
        tx.update(x, tx.init(x))
    with pytest.raises(ValueError, match=r"^scale_by_lbfgs: bounds must be a pair \(lower, upper\), got Array"):
        tx.update(x, tx.init(x), x, bounds=x)
    with pytest.raises(ValueError, match="^scale_by_lbfgs: complex parameters have no bounds"):
        z = x.astype(jnp.complex64)
        tx.update(z, tx.init(z), z, bounds=(x, None))
    with pytest.raises(ValueError, match="memory_size must be a whole number >= 1"):
        gt.lbfgs(memory_size=0)


def test_what_it_consists_of():
    assert repr(gt.lbfgs()) == "lbfgs()"
    assert gt.needs(gt.lbfgs()) == {"value", "grad", "value_fn"} and gt.needs(gt.lbfgs(0.1, linesearch=None)) == set()
    state, theirs = gt.lbfgs().init(jnp.ones(2)), optax.lbfgs().init(jnp.ones(2))
    for ours, of_optax in zip(state, theirs, strict=True):
        assert ours._fields == of_optax._fields
