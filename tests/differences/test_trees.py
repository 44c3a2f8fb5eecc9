# SPDX-License-Identifier: Apache-2.0
"""Where gradtx's functions of trees differ from those of optax 0.2.8."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")

PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
SPECS = {"w": "of w", "b": "of b"}


def test_low_precision_reductions():
    x = jnp.full(4, 300.0, jnp.float16)
    for f, expected in [
        (lambda lib: lib.tree.norm(x), 600),
        (lambda lib: lib.tree.vdot(x, x), 360_000),
        (lambda lib: lib.tree.sum(jnp.full(1000, 300.0, jnp.float16)), 300_000),
    ]:
        assert f(gt) == expected and np.isinf(f(optax))
    assert gt.numerics.safe_norm(x, 0.0) == 600 and np.isinf(optax.safe_norm(x, 0.0))
    for name in ("max", "min"):
        assert getattr(gt.tree, name)(x).dtype == jnp.float32 and getattr(optax.tree, name)(x).dtype == jnp.float16


def test_norms_of_large_numbers():
    x = jnp.full(4, 1e30)
    np.testing.assert_allclose(gt.numerics.safe_norm(x, 0.0), 2e30, rtol=1e-6)
    np.testing.assert_allclose(gt.numerics.safe_root_mean_squares(x, 0.0), 1e30, rtol=1e-6)
    assert np.isinf(optax.safe_norm(x, 0.0)) and np.isinf(optax.safe_root_mean_squares(x, 0.0))


def test_norms_of_nothing():
    assert gt.tree.norm({}, ord=jnp.inf) == 0 and optax.tree.norm({}, ord=jnp.inf) == -jnp.inf
    assert gt.numerics.safe_root_mean_squares(jnp.zeros(0), 0.5) == 0.5
    assert np.isnan(optax.safe_root_mean_squares(jnp.zeros(0), 0.5))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "add_scale"])
def test_shapes_and_none(name):
    scalar = (1.0,) if name == "add_scale" else ()
    x, y = jnp.ones((2, 3)), jnp.ones((1, 3))
    assert getattr(optax.tree, name)(x, *scalar, y).shape == (2, 3)
    with pytest.raises(ValueError, match="nothing but scalars is broadcast"):
        getattr(gt.tree, name)(x, *scalar, y)
    with pytest.raises((TypeError, ValueError)):
        getattr(optax.tree, name)({"a": x}, *scalar, {"a": None})
    assert getattr(gt.tree, name)({"a": x}, *scalar, {"a": None})["a"] is x


def test_close_shapes():
    assert optax.tree.allclose(jnp.ones(2), jnp.ones((1, 2))) and not gt.tree.allclose(jnp.ones(2), jnp.ones((1, 2)))
    with pytest.raises(TypeError, match="broadcasting"):
        optax.tree.allclose(jnp.ones(2), jnp.ones(3))
    assert not gt.tree.allclose(jnp.ones(2), jnp.ones(3))


def test_casts():
    z, key = jnp.asarray([1 + 2j]), jax.random.key(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(optax.tree.cast(z, jnp.float32), [1.0])
    np.testing.assert_array_equal(gt.tree.cast(z, jnp.float32), z)
    with pytest.raises(NotImplementedError):
        optax.tree.cast(key, jnp.float32)
    assert gt.tree.cast(key, jnp.float32) is key
    with pytest.raises(ValueError, match="structure"):
        optax.tree.cast_like({"a": None}, {"a": jnp.ones(1)})
    assert gt.tree.cast_like({"a": None}, {"a": jnp.ones(1)}) == {"a": None}


@pytest.mark.parametrize("name", ["update_moment", "update_moment_per_elem_norm", "update_infinity_moment"])
def test_types_of_moments(name):
    g, m = jnp.ones(2), jnp.ones(2, jnp.bfloat16)
    ours, theirs = (getattr(lib.tree, name)(g, m, 0.9, 2) for lib in (gt, optax))
    assert ours.dtype == jnp.bfloat16 and theirs.dtype == jnp.float32
    ours, theirs = (getattr(lib.tree, name)({"a": None}, {"a": g}, 0.9, 2) for lib in (gt, optax))
    assert theirs == {"a": None} and ours["a"] is g


def test_odd_powers_of_the_magnitude():
    for x in (jnp.asarray([-2.0]), jnp.asarray([-2.0 + 0j])):
        ours, theirs = (lib.tree.update_moment_per_elem_norm(x, jnp.zeros(1), 0.5, 3) for lib in (gt, optax))
        np.testing.assert_allclose(ours, [4.0], rtol=1e-6)
        np.testing.assert_allclose(theirs, [4.0] if jnp.iscomplexobj(x) else [-4.0], rtol=1e-6)


def test_several_matches():
    for lib in (gt, optax):
        state = lib.chain(lib.adam(0.1), lib.adam(0.1)).init(PARAMS)
        with pytest.raises(KeyError) as error:
            lib.tree.get(state, "count")
        assert ("0.0.count, 1.0.count" in str(error.value)) is (lib is gt)
        assert (lib.tree.get(state, "1.0.count") is None) is (lib is optax)


def test_dataclasses():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Box:
        x: int

    assert optax.tree.get(Box(1), "x") is None and gt.tree.get(Box(1), "x") == 1
    assert optax.tree.get_all_with_path(Box(1), "x") == [] and len(gt.tree.get_all_with_path(Box(1), "x")) == 1
    with pytest.raises(KeyError):
        optax.tree.set(Box(1), x=2)
    assert gt.tree.set(Box(1), x=2) == Box(2)


def test_a_count_that_is_set():
    state = gt.adam(0.1).init(PARAMS)
    ours, theirs = (lib.tree.set(state, count=5)[0].count for lib in (gt, optax))
    assert theirs == 5 and isinstance(theirs, int)
    assert ours == 5 and ours.dtype == jnp.int32 and not ours.weak_type


@pytest.mark.parametrize("kind", ["sm3", "masked"])
def test_map_params_of_other_trees(kind):
    def found(lib):
        tx = lib.sm3(0.1) if kind == "sm3" else lib.masked(lib.adam(0.1), {"w": True, "b": False})
        return lib.tree.map_params(tx, lambda x, spec: spec, tx.init(PARAMS), SPECS)

    with pytest.raises(ValueError, match="structure"):
        found(optax)
    leaves = [x for x in jax.tree.leaves(found(gt)) if isinstance(x, str)]
    assert leaves == (["of b", "of w", "of w", "of b", "of w"] if kind == "sm3" else ["of w", "of w"])


def test_map_params_of_factored_moments():
    def found(lib, **kwargs):
        tx = lib.adafactor(0.1, min_dim_size_to_factor=2)
        return lib.tree.map_params(tx, lambda x, spec: spec, tx.init(PARAMS), SPECS, **kwargs)[0]

    assert found(gt).v_row == found(optax).v_row == SPECS
    assert found(gt, params=PARAMS).v["b"] == "of b" and found(gt, params=PARAMS).v_row["w"].shape == (3,)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int16])
def test_whole_numbers_do_not_wrap(dtype):
    x = {"a": jnp.full(2, 100 if dtype != jnp.int16 else 30_000, dtype)}
    n = np.asarray(x["a"], np.int64)
    for name, args, expected in [
        ("vdot", (x, x), np.sum(n * n)),
        ("mul", (x, x), n * n),
        ("add", (x, x, x), 3 * n),
        ("sub", (jax.tree.map(jnp.zeros_like, x), x), -n),
        ("scale", (5, x), 5 * n),
        ("add_scale", (x, 4, x), 5 * n),
    ]:
        found = jax.tree.leaves(getattr(gt.tree, name)(*args))[0]
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == jnp.int32
    assert not np.array_equal(optax.tree.mul(x, x)["a"], n * n)
    assert gt.tree.where(True, x, x)["a"].dtype == dtype  # which needs no room


def test_the_smallest_whole_number_has_a_norm():
    x = jnp.asarray([-128], jnp.int8)
    assert gt.tree.norm(x, 1) == gt.tree.norm(x, "inf") == 128
    assert optax.tree.norm(x, 1) == -128


def test_whole_numbers_cannot_hold_a_half():
    x = {"a": jnp.arange(2, dtype=jnp.int8)}
    assert not np.any(optax.tree.full_like(x, 0.5)["a"])
    for value in (0.5, 300, jnp.asarray(np.nan)):
        with pytest.raises(ValueError, match=r"full_like: fill_value .* int8, the dtype at \['a'\], can hold"):
            gt.tree.full_like(x, value)
    assert gt.tree.full_like(x, 0.5, jnp.float32)["a"][0] == 0.5 and gt.tree.full_like(x, 2.0)["a"][0] == 2
