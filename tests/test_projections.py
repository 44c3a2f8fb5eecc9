# SPDX-License-Identifier: Apache-2.0
"""Projections: against other algorithms in float64, by what makes a point the nearest, against optax, at extremes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx.projections as pj

SCALED = ["simplex", "l1_ball", "l1_sphere", "l2_ball", "l2_sphere", "linf_ball", "hypercube"]
CONVEX = [n for n in SCALED if "sphere" not in n]
SCALES = [0.3, 1.0, 4.0]
RNG = np.random.default_rng(0)
TREE = {"a": jnp.asarray([1.0, -2.0, 3.0]), "b": {"c": jnp.asarray([[0.5, -0.1]]), "n": None}, "d": jnp.asarray(0.7)}


def named(name):
    return getattr(pj, f"projection_{name}")


def bisected(f, total):
    """The sum of f(τ) is decreasing in τ: where it is `total`."""
    low, high = -1e3, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(f(middle)) > total else (low, middle)
    return f(low)


def simplex(x, s):
    return bisected(lambda shift: np.maximum(x - shift, 0), s)


def l1_sphere(x, s):
    return np.where(x < 0, -1, 1) * simplex(np.abs(x), s)


REFERENCES = {
    "simplex": simplex,
    "l1_sphere": l1_sphere,
    "l1_ball": lambda x, s: x if np.sum(np.abs(x)) <= s else l1_sphere(x, s),
    "l2_sphere": lambda x, s: s * x / np.linalg.norm(x),
    "l2_ball": lambda x, s: x if np.linalg.norm(x) <= s else s * x / np.linalg.norm(x),
    "linf_ball": lambda x, s: np.clip(x, -s, s),
    "hypercube": lambda x, s: np.clip(x, 0, s),
}


def points(name, n, s):
    """Points of the set."""
    z = RNG.normal(size=(200, n))
    if name == "simplex":
        return s * RNG.dirichlet(np.full(n, 0.3), size=200)
    if name == "hypercube":
        return RNG.uniform(0, s, size=(200, n))
    order = {"l1": 1, "l2": 2, "linf": np.inf}[name.partition("_")[0]]
    return s * z / np.linalg.norm(z, order, axis=1, keepdims=True) * RNG.uniform(0.5, 1, size=(200, 1))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SCALED)
def test_against_another_algorithm(name, scale):
    for n in (1, 2, 7, 50):
        x = 2 * RNG.normal(size=n)
        got = np.asarray(named(name)(jnp.asarray(x), scale))
        np.testing.assert_allclose(got, REFERENCES[name](x, scale), atol=1e-12, rtol=1e-12)
        np.testing.assert_allclose(named(name)(jnp.asarray(got), scale), got, atol=1e-14, rtol=1e-13)  # once is enough


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CONVEX)
def test_nearest_point_of_a_convex_set(name):
    """p is the nearest point to x exactly if it lies in the set and ⟨x - p, z - p⟩ <= 0 for all z in it."""
    for scale in SCALES:
        x = 2 * RNG.normal(size=6)
        p = np.asarray(named(name)(jnp.asarray(x), scale))
        assert np.all((points(name, 6, scale) - p) @ (x - p) <= 1e-12)
        inside = points(name, 6, scale)[0]
        np.testing.assert_allclose(named(name)(jnp.asarray(inside), scale), inside, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.458, 0.1, 0.7, 1.3])
def test_what_is_far_below_the_largest_number_has_no_part(scale):
    """In float32, where the sum of many equal numbers is not a multiple of one of them."""
    for n in range(2, 20):
        x = jnp.asarray(np.linspace(0.0, -30.0, n) - 5.0 * (np.arange(n) > 0), jnp.float32)
        expected = np.where(np.arange(n) == 0, np.float32(scale), 0)
        np.testing.assert_allclose(pj.projection_simplex(x, scale), expected, rtol=1e-6)
        np.testing.assert_allclose(pj.projection_l1_ball(x + 50, scale), expected, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_lines_planes_and_half_spaces():
    x, a = jax.tree.map(
        jnp.asarray, ({"u": RNG.normal(size=(2, 3)), "v": 2.0}, {"u": RNG.normal(size=(2, 3)), "v": -1.0})
    )
    flat_x, flat_a = (np.concatenate([np.ravel(t["u"]), np.ravel(t["v"])]) for t in (x, a))
    product = flat_x @ flat_a

    def flat(tree):
        return np.concatenate([np.ravel(tree["u"]), np.ravel(tree["v"])])

    np.testing.assert_allclose(flat(pj.projection_vector(x, a)), product / (flat_a @ flat_a) * flat_a, rtol=1e-12)
    for b in (product - 2.0, product, product + 2.0):
        on = flat_x - (product - b) / (flat_a @ flat_a) * flat_a
        np.testing.assert_allclose(flat(pj.projection_hyperplane(x, a, b)), on, rtol=1e-12)
        half = pj.projection_halfspace(x, a, b)
        np.testing.assert_allclose(flat(half), on if product > b else flat_x, rtol=1e-12)
        np.testing.assert_allclose(flat(pj.projection_halfspace(half, a, b)), flat(half), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", [n for n in SCALED if n != "hypercube"])
def test_numbers_and_derivatives_of_optax(name):
    ours, theirs = named(name), getattr(optax.projections, f"projection_{name}")

    def close(a, b):
        chex.assert_trees_all_close(a, b, atol=2e-5, rtol=1e-5)

    def derivatives(f):
        return jax.jit(lambda tree, scale: [d(f, i)(tree, scale) for i in (0, 1) for d in (jax.jacobian, jax.jacfwd)])

    found, expected = derivatives(ours), derivatives(theirs)
    for scale in SCALES:
        close(ours(TREE, scale), theirs(TREE, scale))
        close(found(TREE, scale), expected(TREE, scale))


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_numbers_and_derivatives_of_optax_on_lines():
    x, a = jnp.asarray([1.0, -2.0, 3.0]), jnp.asarray([1.0, 2.0, -1.0])
    for name, rest in (("vector", ()), ("hyperplane", (-8.0,)), ("halfspace", (-8.0,)), ("halfspace", (1.0,))):
        ours, theirs = named(name), getattr(optax.projections, f"projection_{name}")
        np.testing.assert_allclose(ours(x, a, *rest), theirs(x, a, *rest), rtol=1e-5)
        for i in range(2 + len(rest)):
            np.testing.assert_allclose(
                jax.jacobian(ours, i)(x, a, *rest), jax.jacobian(theirs, i)(x, a, *rest), atol=1e-5
            )
    np.testing.assert_array_equal(pj.projection_non_negative(x), [1.0, 0.0, 3.0])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SCALED)
def test_derivatives_are_those_of_differences(name):
    x, s, h = jnp.asarray([1.0, -0.4, 0.3, 2.0]), 1.5, 1e-6
    if name == "hypercube":
        s = 0.9
    f = named(name)
    for i in range(4):
        step = h * np.eye(4)[i]
        want = (np.asarray(f(x + step, s)) - np.asarray(f(x - step, s))) / (2 * h)
        np.testing.assert_allclose(jax.jacobian(f)(x, s)[:, i], want, atol=1e-8)
    want = (np.asarray(f(x, s + h)) - np.asarray(f(x, s - h))) / (2 * h)
    np.testing.assert_allclose(jax.jacobian(f, 1)(x, s), want, atol=1e-8)


def test_boxes_take_trees_prefixes_and_none():
    got = pj.projection_box(TREE, -1, {"a": jnp.asarray([0.0, 1.0, 2.0]), "b": 0.25, "d": 1.0})
    np.testing.assert_array_equal(got["a"], [0.0, -1.0, 2.0])
    np.testing.assert_array_equal(got["b"]["c"], jnp.asarray([[0.25, -0.1]]))
    assert got["b"]["n"] is None
    for name in SCALED:
        assert named(name)(TREE)["b"]["n"] is None
        assert named(name)({"a": None}) == {"a": None}
        assert named(name)(jnp.zeros([0])).shape == (0,)


@pytest.mark.slow
def test_dtypes_stay_and_arithmetic_is_float32():
    x = {"h": jnp.asarray([300.0, -200.0], jnp.float16), "f": jnp.asarray([1.0])}
    for name in SCALED:
        got = named(name)(x)
        assert got["h"].dtype == jnp.float16 and got["f"].dtype == jnp.float32
        assert named(name)(jnp.asarray([2, 1])).dtype == jnp.float32
    np.testing.assert_allclose(pj.projection_l2_ball(x)["h"], np.asarray([300, -200]) / np.sqrt(130001), rtol=1e-3)
    many = pj.projection_simplex(jnp.full(1000, 5.0, jnp.bfloat16))
    np.testing.assert_allclose(many.astype(jnp.float32), 1e-3, rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-37, 1e-25, 1e25, 3e38])
@pytest.mark.parametrize("name", ["simplex", "l1_ball", "l1_sphere", "l2_ball", "l2_sphere"])
def test_extremes(name, size):
    x = jnp.asarray([1.0, -0.5, 0.25]) * jnp.float32(size)
    got, derivative = named(name)(x), jax.jacobian(named(name), 1)(x, 1.0)
    want = REFERENCES[name](np.asarray(x, np.float64), 1.0) if name[:2] == "l2" else None
    if name in ("simplex", "l1_ball", "l1_sphere"):
        shares = np.asarray([1.0, 0.0, 0.0]) if size > 1 else np.full(3, 1 / 3)
        signs = np.asarray([1, 1 if name == "simplex" else -1, 1])
        want = np.asarray(x) if size < 1 and name == "l1_ball" else signs * shares
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7 if size > 1 else 0)
    assert np.all(np.isfinite(derivative))


@pytest.mark.slow
def test_degenerate_sets():
    np.testing.assert_allclose(pj.projection_l2_sphere(jnp.zeros(4), 2.0), 1.0)
    assert np.all(jax.jacobian(pj.projection_l2_sphere)(jnp.zeros(4)) == 0)
    np.testing.assert_allclose(pj.projection_l1_sphere(jnp.asarray([0.0, 0.2])), [0.4, 0.6], rtol=1e-6)
    x = jnp.asarray([1.0, -2.0])
    for name in SCALED:
        np.testing.assert_array_equal(named(name)(x, 0.0), [0.0, 0.0])
    np.testing.assert_array_equal(pj.projection_vector(x, 0 * x), [0.0, 0.0])
    np.testing.assert_array_equal(pj.projection_hyperplane(x, 0 * x, 1.0), x)
    np.testing.assert_array_equal(pj.projection_halfspace(x, 0 * x, -1.0), x)
    np.testing.assert_allclose(pj.projection_hyperplane(x, 1e-25 * x, 1e-25), x * 0.2, rtol=1e-5)
    np.testing.assert_array_equal(pj.projection_simplex(jnp.asarray([jnp.inf, 1.0])), [1.0, 0.0])
    for name in SCALED:
        assert np.isnan(named(name)(jnp.asarray([jnp.nan, 1.0]))).any()


@pytest.mark.slow
def test_jit_and_vmap():
    x = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
    for name in SCALED:
        f = named(name)
        batched = jax.jit(jax.vmap(f, (0, None)))(x, jnp.asarray(0.5))
        np.testing.assert_allclose(batched, [f(row, 0.5) for row in x], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: pj.projection_simplex(TREE, -1.0), ValueError, "scale must be a number >= 0"),
        (lambda: pj.projection_l2_ball(TREE, jnp.ones(3)), ValueError, "scale must be one number"),
        (lambda: pj.projection_l1_ball(jnp.ones(2, complex)), TypeError, "complex"),
        (lambda: pj.projection_box(TREE, 1.0, 0.0), ValueError, r"\['a'\].*above the upper"),
        (lambda: pj.projection_box({"a": jnp.ones(3)}, 0, jnp.ones((2, 3))), ValueError, r"\['a'\].*shape \(2, 3\)"),
        (lambda: pj.projection_box(TREE, {"a": 0.0}, 1.0), ValueError, "lower has nothing for"),
        (lambda: pj.projection_vector({"a": jnp.ones(3)}, {"b": jnp.ones(3)}), ValueError, "a have|x have"),
        (lambda: pj.projection_hyperplane(jnp.ones(3), jnp.ones(1), 0.0), ValueError, "shape"),
    ],
)
def test_errors(call, error, said):
    with pytest.raises(error, match=said):
        call()
