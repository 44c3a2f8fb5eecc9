# SPDX-License-Identifier: Apache-2.0
"""Low-rank projections: shapes and memory, which axes, random numbers, devices, edges."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx as gt
from gradtx import GaLoreDimensionNumbers

RNG = np.random.default_rng(0)
P = {"a": jnp.zeros((6, 4)), "b": jnp.zeros((4, 6)), "v": jnp.zeros(5), "t": jnp.zeros((2, 3, 4))}
G = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), jnp.float32), P)


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def run(tx, params=P, gradients=G, steps=3):
    state, update = tx.init(params), jax.jit(tx.update)
    for i in range(steps):
        u, state = update(jax.tree.map(lambda g, i=i: g * (1 + i), gradients), state, params)
    return u, state


@pytest.mark.parametrize(
    ("side", "projected", "moments"),
    [("larger", {"a": (6, 2), "b": (6, 2)}, {"a": (2, 4), "b": (4, 2)}),
     ("smaller", {"a": (4, 2), "b": (4, 2)}, {"a": (6, 2), "b": (2, 6)})],
)  # fmt: skip  # two lines of a table
def test_what_is_remembered(side, projected, moments):
    state = gt.scale_by_galore(2, side=side).init(P)
    rest = {"v": (5,), "t": (2, 3, 4)}
    assert shapes(state.projector) == {**projected, "v": (0, 0), "t": (0, 0)}
    assert shapes(state.base_optimizer_state.mu) == {**moments, **rest}


def test_apollo_remembers_no_projection():
    state = gt.scale_by_apollo(1).init(P)
    assert state.projector is None
    assert sum(x.size for x in jax.tree.leaves(state)) == 2 * (6 + 6 + 5 + 24) + 2 + len(P)


def test_updates_have_rank_and_scale():
    u, _ = run(gt.scale_by_galore(2, scale=0.5))
    v, _ = run(gt.scale_by_galore(2))
    assert np.linalg.matrix_rank(u["a"], tol=1e-4) == 2
    np.testing.assert_allclose(u["a"], 0.5 * v["a"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(u["v"], v["v"])
    full, _ = run(gt.scale_by_fira(2))
    assert np.linalg.matrix_rank(full["a"], tol=1e-4) == 4


def test_a_constant_gradient_of_low_rank_is_not_changed_by_the_projection():
    low = {"a": jnp.outer(G["a"][:, 0], G["a"][0]), "v": G["v"]}
    tx = gt.scale_by_galore(1, base_optimizer=gt.trace(0.9))
    u, _ = run(tx, low, low)
    want, _ = run(gt.trace(0.9), low, low)
    chex.assert_trees_all_close(u, want, rtol=1e-4, atol=1e-5)


def test_axes_of_tensors_may_be_rows_or_columns():
    spec = {"a": GaLoreDimensionNumbers(1, 0), "b": None, "v": None, "t": GaLoreDimensionNumbers((0, -1), 1)}
    for numbers in (spec, lambda params: spec):
        tx = gt.scale_by_galore(2, weight_dimension_numbers=numbers)
        u, state = run(tx)
        assert shapes(u) == shapes(P)
        assert shapes(state.projector) == {"a": (6, 2), "b": (0, 0), "v": (0, 0), "t": (8, 2)}
        assert np.linalg.matrix_rank(u["t"].transpose(0, 2, 1).reshape(8, 3), tol=1e-4) == 2
        np.testing.assert_allclose(np.abs(u["b"]), 1.0, atol=0.1)  # Adam's


def test_a_prefix_of_dimension_numbers():
    params = {"x": {"k": jnp.ones((3, 2)), "l": jnp.ones((5, 2))}, "y": {"m": jnp.ones((3, 3)), "n": jnp.ones(())}}
    tx = gt.scale_by_galore(1, weight_dimension_numbers={"x": GaLoreDimensionNumbers(), "y": None})
    state = tx.init(params)
    assert shapes(state.projector) == {"x": {"k": (3, 1), "l": (5, 1)}, "y": {"m": (0, 0), "n": (0, 0)}}
    tx.update(params, state)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"a": GaLoreDimensionNumbers(0, 0), "b": None, "v": None, "t": None}, r"at \['a'\]: .* must name each axis"),
        ({"a": None, "b": None, "v": None, "t": GaLoreDimensionNumbers(0, 1)}, r"at \['t'\]: .* must name each axis"),
        ({"a": None}, r"weight_dimension_numbers has nothing for \['b'\], \['t'\], \['v'\]"),
    ],
)
def test_dimension_numbers_that_do_not_fit_are_errors(numbers, message):
    with pytest.raises(ValueError, match=message):
        gt.scale_by_galore(2, weight_dimension_numbers=numbers).init(P)


def test_other_errors():
    with pytest.raises(TypeError, match="must hold GaLoreDimensionNumbers or None, got 3"):
        gt.scale_by_galore(2, weight_dimension_numbers={"a": 3, "b": None, "v": None, "t": None}).init(P)
    with pytest.raises(TypeError, match="low_rank: state must be the GaLoreState"):
        gt.scale_by_galore(2).update(G, G)
    with pytest.raises(ValueError, match="rank must be a whole number >= 1"):
        gt.galore(0.1, 0)
    with pytest.raises(TypeError, match="galore: base_optimizer must be a transformation"):
        gt.galore(0.1, base_optimizer=0.1)


def test_projections_differ_by_leaf_redraw_and_seed():
    same = {"k": G["a"], "l": G["a"]}
    tx = gt.scale_by_apollo(1, 2, growth=100.0)

    def ratios(tx, steps):
        u, _ = run(tx, same, same, steps)
        return {n: np.asarray(u[n] / (same[n] * steps)) for n in same}

    first = ratios(tx, 1)
    assert not np.allclose(first["k"], first["l"])
    np.testing.assert_array_equal(first["k"], ratios(tx, 1)["k"])
    assert not np.allclose(first["k"], ratios(gt.scale_by_apollo(1, 2, growth=100.0, seed=1), 1)["k"])
    kept, redrawn = (ratios(gt.scale_by_apollo(1, gap, growth=100.0), 2)["k"] for gap in (2, 1))
    assert not np.allclose(kept, redrawn)


def test_names_do_not_change_the_projection():
    a, _ = run(gt.scale_by_apollo(1), {"a": P["a"], "b": P["b"]}, {"a": G["a"], "b": G["b"]})
    b, _ = run(gt.scale_by_apollo(1), [P["a"], P["b"]], [G["a"], G["b"]])
    np.testing.assert_array_equal(a["b"], b[1])


@pytest.mark.parametrize("make", [gt.scale_by_galore, gt.scale_by_fira, gt.scale_by_apollo])
def test_eight_devices_give_what_one_gives(make):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    params = {
        "w": jnp.asarray(RNG.normal(size=(16, 8)), jnp.float32),
        "k": jnp.asarray(RNG.normal(size=(8, 24)), jnp.float32),
    }
    spread = jax.tree.map(lambda p: jax.device_put(p, NamedSharding(mesh, PartitionSpec("x"))), params)
    assert len(spread["w"].sharding.device_set) == 8
    one, _ = run(make(2, 2), params, params)
    eight, _ = run(make(2, 2), spread, spread)
    chex.assert_trees_all_close(one, eight, rtol=1e-4, atol=1e-5)


def test_growth_is_limited_and_may_restart_from_zero():
    g = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
    tx = gt.scale_by_apollo(2, base_optimizer=gt.identity(), growth=1.5)
    state = tx.init(g)
    found = []
    for scale in (1.0, 10.0, 10.0, 1.0, 0.0, 5.0):
        u, state = tx.update(scale * g, state, g)
        found.append(float(jnp.linalg.norm(u) / jnp.linalg.norm(g)))
    np.testing.assert_allclose(found, [1.0, 1.5, 2.25, 1.0, 0.0, 5.0], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [gt.scale_by_galore, gt.scale_by_fira, gt.scale_by_apollo])
def test_zero_gradients_are_finite_with_their_derivatives(make):
    zero = jax.tree.map(jnp.zeros_like, P)
    tx = make(2)

    def total(g):
        u, _ = tx.update(g, tx.init(P), P)
        return sum(jnp.sum(x) for x in jax.tree.leaves(u))

    for x in jax.tree.leaves((tx.update(zero, tx.init(P), P), jax.grad(total)(zero), jax.grad(total)(G))):
        assert np.all(np.isfinite(x))


@pytest.mark.parametrize("make", [gt.scale_by_galore, gt.scale_by_fira, gt.scale_by_apollo])
def test_complex_matrices(make):
    """Rotating the gradient rotates the update."""
    g = jnp.asarray(RNG.normal(size=(4, 3)) + 1j * RNG.normal(size=(4, 3)), jnp.complex64)
    u, _ = run(make(2), g, g)
    turned, state = run(make(2), 1j * g, 1j * g)
    np.testing.assert_allclose(turned, 1j * u, rtol=1e-3, atol=1e-4)
    assert not jnp.iscomplexobj(state.base_optimizer_state.nu)


def test_the_inner_optimizer_sees_projected_parameters():
    p = {"a": G["a"], "v": G["v"]}
    tx = gt.scale_by_galore(2, base_optimizer=gt.add_decayed_weights(1.0))
    u, state = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)
    basis = state.projector["a"]
    np.testing.assert_allclose(u["a"], basis @ basis.T @ p["a"], atol=1e-5)
    np.testing.assert_allclose(u["v"], p["v"])


def test_masks_holes_and_integers():
    params = {"a": P["a"], "n": None, "i": jnp.ones((2, 2), jnp.int32)}
    g = {"a": G["a"], "n": None, "i": np.zeros((2, 2), jax.dtypes.float0)}
    for make in (gt.galore, gt.fira, gt.apollo):
        tx = gt.masked(make(0.1, 2), {"a": True, "n": False, "i": True})
        u, state = tx.update(g, tx.init(params), params)
        assert u["n"] is None and u["i"].dtype == jax.dtypes.float0
        before = state
        u, state = tx.update({**g, "a": None}, state, params)
        assert u["a"] is None
        kept = [s.inner_state[0] for s in (before, state)]
        np.testing.assert_array_equal(kept[0].base_optimizer_state.mu["a"], kept[1].base_optimizer_state.mu["a"])


HEADS = gt.Role("hidden", in_axes=0, out_axes=2, heads=1)
LAYERS_OF_HEADS = gt.Role("hidden", 0, in_axes=1, out_axes=3, heads=2)
BLOCKS = gt.Role("hidden", in_axes=0, out_axes=1, blocks=(3, 5))
KERNEL = gt.Role("hidden", in_axes=2, out_axes=3, kernel=(0, 1))


def matrices_of(role, x):
    """The matrices in a parameter with this role, one by one."""
    return {
        HEADS: lambda: [x[:, i] for i in range(x.shape[1])],
        LAYERS_OF_HEADS: lambda: [layer[:, i] for layer in x for i in range(x.shape[2])],
        BLOCKS: lambda: [x[:, :3], x[:, 3:]],
        KERNEL: lambda: [x.reshape(-1, x.shape[-1])],
    }[role]()


@pytest.mark.parametrize("make", [gt.scale_by_galore, gt.scale_by_fira])
@pytest.mark.parametrize(
    ("role", "shape"), [(HEADS, (6, 2, 4)), (LAYERS_OF_HEADS, (2, 6, 2, 4)), (BLOCKS, (6, 8)), (KERNEL, (2, 1, 3, 4))]
)
def test_matrices_in_a_parameter_are_projected_one_by_one(make, role, shape):
    g = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    u, state = run(gt.with_roles([("**", role)], make(2)), g, g)
    alone, _ = run(make(2), matrices_of(role, g), matrices_of(role, g))
    chex.assert_trees_all_close(matrices_of(role, u), alone, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, jax.eval_shape(gt.with_roles([("**", role)], make(2)).init, g))


def test_heads_and_blocks_share_a_random_projection_and_layers_do_not():
    """A stack has the numbers of its layers as leaves, also after a leaf without a gradient."""
    g = jnp.asarray(RNG.normal(size=(3, 6, 2, 4)), jnp.float32)
    tx = gt.scale_by_apollo(1, growth=100.0)
    of_stack = gt.with_roles([("w", LAYERS_OF_HEADS), ("e", gt.Role(stack=0))], tx)
    of_leaves = gt.with_roles([("w/*", HEADS), ("e", gt.Role(stack=0))], tx)
    params = {"e": jnp.ones((4, 5)), "w": g}
    u, _ = of_stack.update({"e": None, "w": g}, of_stack.init(params), params)
    layers = {"e": params["e"], "w": list(g)}
    each, _ = of_leaves.update(layers, of_leaves.init(layers), layers)
    np.testing.assert_allclose(u["w"], jnp.stack(each["w"]), rtol=1e-5)

    same = {"w": jnp.broadcast_to(g[:1, :, :1], g.shape)}
    u, _ = of_stack.update({"e": None, **same}, of_stack.init({"e": params["e"], **same}), {"e": params["e"], **same})
    np.testing.assert_allclose(u["w"][:, :, 0], u["w"][:, :, 1], rtol=1e-5)
    assert not np.allclose(u["w"][0], u["w"][1])


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_alike_matrices_are_gathered_once(kind):
    on = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    params = {n: jax.device_put(jnp.ones((16, 24)), NamedSharding(on, PartitionSpec("x"))) for n in "abc"}
    tx = gt.scale_by_apollo(2)
    with jax.set_mesh(on):
        text = jax.jit(tx.update).lower(params, gt.sharding.init_sharded(tx, params)).compile().as_text() or ""
    found = re.findall(r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", text)
    assert found.count("all-gather") <= 1 and not set(found) - {"all-gather"}, found
