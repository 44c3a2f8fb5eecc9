# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on trees, against NumPy in double precision and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import tree

pytestmark = pytest.mark.usefixtures("standard_promotion")

RNG = np.random.default_rng(0)
X = {"a": jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32), "b": (jnp.asarray(RNG.normal(), jnp.float32), None)}
Y = jax.tree.map(lambda x: x * 0.5 + 1, X)

# name, arguments, the formula of one element
CALLS = [
    ("add", (X, Y), lambda x, y: x + y),
    ("add", (X, Y, X), lambda x, y, z: x + y + z),
    ("sub", (X, Y), lambda x, y: x - y),
    ("mul", (X, Y), lambda x, y: x * y),
    ("div", (X, Y), lambda x, y: x / y),
    ("scale", (0.3, X), lambda x: 0.3 * x),
    ("add_scale", (X, 0.3, Y), lambda x, y: x + 0.3 * y),
    ("clip", (X, -0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5)),
    ("clip", (X, None, 0.5), lambda x: np.minimum(x, 0.5)),
    ("clip", (X,), lambda x: x),
    ("conj", (X,), np.conj),
    ("real", (X,), np.real),
    ("where", (jnp.asarray(True), X, Y), lambda x, y: x),
    ("where", (jnp.asarray(False), X, Y), lambda x, y: y),
]


def same(found, expected, rtol=1e-6):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize(("name", "args", "formula"), CALLS, ids=[f"{i}-{c[0]}" for i, c in enumerate(CALLS)])
def test_numbers(name, args, formula):
    found = getattr(tree, name)(*args)
    trees = [x for x in args if isinstance(x, dict)]
    same(found, jax.tree.map(lambda *xs: formula(*map(np.float64, xs)), *trees))
    theirs = getattr(optax.tree, name)(*args)
    same(found, theirs)
    assert [x.dtype for x in jax.tree.leaves(found)] == [x.dtype for x in jax.tree.leaves(theirs)]
    same(jax.jit(getattr(tree, name), static_argnums=1 if name == "clip" else ())(*args), found)


def test_whole_and_complex_numbers():
    whole = {"a": jnp.asarray([1, 4])}
    assert tree.add(whole, whole)["a"].dtype == jnp.int32
    np.testing.assert_array_equal(tree.div(whole, {"a": jnp.asarray([2, 2])})["a"], [0.5, 2.0])
    z = {"a": jnp.asarray([1 + 2j])}
    np.testing.assert_array_equal(tree.mul(z, tree.conj(z))["a"], [5 + 0j])
    np.testing.assert_array_equal(tree.add_scale(z, 2.0, tree.real(z))["a"], [3 + 2j])


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "add_scale"])
def test_none_means_no_value(name):
    """None in the first tree stays; in another, it changes nothing."""
    f = getattr(tree, name)
    scalar = (2.0,) if name == "add_scale" else ()
    assert f({"a": None}, *scalar, {"a": jnp.ones(2)}) == {"a": None}
    np.testing.assert_array_equal(f({"a": jnp.full(2, 3.0)}, *scalar, {"a": None})["a"], [3.0, 3.0])


def test_rounded_once():
    """In bfloat16, 1 + 2^-8 + 2^-8 is 1 when added one after the other."""
    one, small = jnp.ones(1, jnp.bfloat16), jnp.full(1, 2.0**-8, jnp.bfloat16)
    assert tree.add(one, small, small)[0] == 1 + 2.0**-7
    assert tree.add(one, small, small).dtype == jnp.bfloat16
    assert tree.scale(0.5, one).dtype == jnp.bfloat16
    assert tree.mul(jnp.full(1, 300.0, jnp.float16), 300.0).dtype == jnp.float16


def test_mixed_dtypes_also_under_strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        assert tree.add(jnp.ones(1, jnp.bfloat16), jnp.ones(1)).dtype == jnp.float32
        assert tree.scale(jnp.float32(2), {"a": jnp.ones(1, jnp.bfloat16)})["a"].dtype == jnp.float32


def test_nothing_but_scalars_is_broadcast():
    x = {"w": {"k": jnp.ones((2, 3))}}
    np.testing.assert_array_equal(tree.mul(x, {"w": {"k": 2.0}})["w"]["k"], np.full((2, 3), 2.0))
    with pytest.raises(ValueError, match=r"add: at \['w'\]\['k'\]: tree_x has shape \(2, 3\), tree_y has .*\(1, 3\)"):
        tree.add(x, {"w": {"k": jnp.ones((1, 3))}})
    with pytest.raises(ValueError, match=r"sub: the trees do not match: tree_x have \['w'\]\['k'\]"):
        tree.sub(x, {"v": jnp.ones(2)})


def test_where_keeps_nan_out():
    x, bad = {"x": jnp.asarray([2.0, 3.0])}, {"x": jnp.asarray([jnp.nan, 4.0])}
    np.testing.assert_array_equal(tree.where(True, x, bad)["x"], [2, 3])
    np.testing.assert_array_equal(tree.where(jnp.asarray([True, False]), x, bad)["x"], [2, 4])
    with pytest.raises(ValueError, match="where: tree_x and tree_y must be None at the same places"):
        tree.where(True, {"a": None}, {"a": jnp.ones(1)})
    assert tree.where(True, {"a": None}, {"a": None}) == {"a": None}


MIXED = [jnp.ones((2, 3), d) for d in (jnp.bfloat16, jnp.float32, jnp.complex64, jnp.int32)]


@pytest.mark.slow
@pytest.mark.parametrize("x", MIXED, ids=lambda x: x.dtype.name)
def test_every_dtype_with_every_other_under_strict_promotion(x):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for y in MIXED:
            for name in ("add", "sub", "mul", "div", "vdot", "allclose"):
                found = getattr(tree, name)({"a": x}, {"a": y})
                expected = {"add": 2, "sub": 0, "mul": 1, "div": 1, "vdot": 6, "allclose": True}[name]
                assert jnp.all(jnp.asarray(jax.tree.leaves(found)[0]) == expected)
            assert jnp.all(tree.add_scale(x, jnp.float32(2), y) == 3)
            assert tree.sum([x, y]) == 12 and tree.where(jnp.asarray(True), x, y)[0, 0] == 1
        for f in (tree.norm, tree.max if x.dtype != jnp.complex64 else tree.norm, lambda a: tree.norm(a, "inf")):
            assert f(x).dtype == jnp.float32
        np.testing.assert_allclose(tree.bias_correction(x * 1, 0.5, 1), np.full((2, 3), 2), rtol=1e-6)
        for f in (tree.update_moment_per_elem_norm, tree.update_infinity_moment):
            assert f(x, jnp.ones((2, 3)), 0.9, 3).dtype == jnp.float32
        np.testing.assert_allclose(gradtx.numerics.safe_norm(x, jnp.float32(0.1)), 6**0.5, rtol=1e-6)
        np.testing.assert_allclose(gradtx.numerics.safe_norm(x, 0.1, axis=0), np.full(3, 2**0.5), rtol=1e-6)
        np.testing.assert_allclose(gradtx.numerics.safe_root_mean_squares(x, 0.1), 1, rtol=1e-6)
