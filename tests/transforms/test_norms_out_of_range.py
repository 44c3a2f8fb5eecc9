# SPDX-License-Identifier: Apache-2.0
"""Gradients whose squares overflow or vanish in float32: the stages that take norms do with them what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

SIZES = pytest.mark.parametrize("size", [1e20, 1e-25], ids=str)
PARAMS = {"w": jnp.full((10, 5), 2.0), "b": jnp.full(50, 2.0)}


def gradients(size):
    """Those of size 1, and the same multiplied by `size`."""
    one = {"w": jnp.linspace(-1.0, 1.0, 50).reshape(10, 5), "b": jnp.linspace(1.0, 2.0, 50)}
    return one, jax.tree.map(lambda g: g * size, one)


def norm(tree):
    return np.sqrt(sum(np.sum(np.asarray(x, np.float64) ** 2) for x in jax.tree.leaves(tree)))


def updated(tx, g):
    return tx.update(g, tx.init(PARAMS), PARAMS)[0]


def assert_close(found, expected, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.asarray(x, np.float64), y, rtol=rtol), found, expected)


def scaled(tree, factor):
    return jax.tree.map(lambda x: np.asarray(x, np.float64) * factor, tree)


@SIZES
def test_global_norm(size):
    one, g = gradients(size)
    np.testing.assert_allclose(np.float64(gradtx.global_norm(g)), norm(g), rtol=1e-6)
    along = jax.jit(jax.grad(lambda s: gradtx.global_norm(jax.tree.map(lambda x: s * x, g))))(1.0)
    np.testing.assert_allclose(np.float64(along), norm(g), rtol=1e-5)


def test_the_norm_of_every_size_that_float32_has():
    """No matter on which side of a limit of the second pass it is."""
    x = np.linspace(-1, 1, 16, dtype=np.float32)
    for power in range(-120, 127, 3):
        found = gradtx.global_norm(jnp.asarray(x * np.float32(2.0**power)))
        np.testing.assert_allclose(np.float64(found), 2.0**power * norm([x]), rtol=1e-6, err_msg=str(power))


@SIZES
def test_clipping_by_the_global_norm(size):
    _, g = gradients(size)
    tx = gradtx.clip_by_global_norm(1e-3 * size)
    expected = scaled(g, 1e-3 * size / norm(g))
    assert_close(updated(tx, g), expected)
    assert_close(jax.jit(updated, static_argnums=0)(tx, g), expected)


@SIZES
@pytest.mark.parametrize(
    ("tx", "like"),
    [
        (gradtx.normalize(), lambda g: scaled(g, 1 / norm(g))),
        (gradtx.normalize_by_update_norm(eps=0.0), lambda g: scaled(g, 1 / norm(g))),
        (gradtx.scale_by_trust_ratio(), lambda g: {k: scaled(g[k], norm(PARAMS[k]) / norm(g[k])) for k in g}),
        (gradtx.scale_by_lars(), lambda g: {k: scaled(g[k], 1e-3 * norm(PARAMS[k]) / norm(g[k])) for k in g}),
    ],
    ids=lambda x: x.factory.name if hasattr(x, "factory") else "",
)
def test_stages(tx, like, size):
    _, g = gradients(size)
    with jax.disable_jit():
        assert_close(updated(tx, g), like(g))


@SIZES
def test_clips_of_each_parameter(size):
    _, g = gradients(size)
    limit = 1e-3 * size
    with jax.disable_jit():
        by_norm, by_rms = (updated(tx(limit), g) for tx in (gradtx.clip_by_norm, gradtx.clip_by_block_rms))
    assert_close(by_norm, {k: scaled(g[k], limit / norm(g[k])) for k in g})
    assert_close(by_rms, {k: scaled(g[k], limit * 50**0.5 / norm(g[k])) for k in g})


@SIZES
@pytest.mark.parametrize("scope", ["parameter", "tree"])
def test_grafts(scope, size):
    """The size of gradients of any size, in the direction of those of size 1."""
    one, g = gradients(1 / size)
    tx = gradtx.graft(gradtx.scale(size), gradtx.identity(), scope)
    assert_close(updated(tx, g), g)


def test_unitwise_clips():
    _, g = gradients(1e20)
    tx = gradtx.adaptive_grad_clip(0.01, axis=0)
    with jax.disable_jit():
        found = np.asarray(updated(tx, g)["w"], np.float64)
    np.testing.assert_allclose(np.sqrt(np.sum(found**2, axis=0)), 0.01 * np.sqrt(10 * 4.0), rtol=1e-5)


def test_examples_of_all_sizes_in_one_batch():
    one, _ = gradients(1.0)
    sizes = jnp.asarray([1.0, 1e20, 1e-25, 0.0])
    batch = jax.tree.map(lambda g: jnp.stack([s * g for s in sizes]), one)
    expected = scaled(one, 2 / norm(one) + 1e-25)
    found, clipped = gradtx.aggregating.per_example_global_norm_clip(batch, 1.0)
    assert clipped == 2
    assert_close(found, expected)
    layers, _ = gradtx.aggregating.per_example_layer_norm_clip(batch, 2**0.5)
    assert_close(layers, {k: scaled(one[k], 2 / norm(one[k]) + 1e-25) for k in one})
    private = gradtx.differentially_private_aggregate(1.0, 0.0, seed=0)
    assert_close(updated(private, batch), scaled(expected, 0.25))


def test_a_norm_that_is_no_float32_leaves_nothing():
    """Elements of 1e38 and more are numbers, their norm is none; a direction has one all the same."""
    _, g = gradients(1.6e38)
    for tx in (gradtx.clip_by_global_norm(1.0), gradtx.clip_by_norm(1.0)):
        first = tx.init(PARAMS), PARAMS
        updates, _ = jax.jit(tx.update)(g, *first)
        assert all(not np.any(x) for x in jax.tree.leaves(updates))
    _, state = gradtx.adam(0.1).update(updates, gradtx.adam(0.1).init(PARAMS), PARAMS)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))
    np.testing.assert_allclose(norm(updated(gradtx.normalize(), g)), 1.0, rtol=1e-5)


def test_under_vmap_each_has_its_own():
    """vmap runs both passes and takes the right one of each; derivatives are finite."""
    one, _ = gradients(1.0)
    tx = gradtx.clip_by_global_norm(1.0)

    def clipped(size):
        return updated(tx, jax.tree.map(lambda g: size * g, one))["b"][0]

    sizes = jnp.asarray([1.0, 1e20, 1e-25, 0.0])
    found, derivative = jax.vmap(jax.value_and_grad(clipped))(sizes)
    np.testing.assert_allclose(found, [1 / norm(one), 1 / norm(one), 1e-25, 0], rtol=1e-5)
    assert np.all(np.isfinite(derivative))


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_is_not_hidden(bad):
    g = {"w": jnp.ones((10, 5)).at[0, 0].set(bad), "b": jnp.ones(50)}
    assert not np.isfinite(gradtx.global_norm(g))
    assert np.isnan(updated(gradtx.clip_by_global_norm(1.0), g)["w"][0, 0])


TREES = {"small": {"a": (16,), "b": (5, 7)}, "large": {"a": (40, 60)}, "mixed": {"a": (16,), "b": (40, 60), "c": (3,)}}
OF_EACH_KIND = pytest.mark.parametrize("kind", TREES)


def of_kind(kind, size):
    """Arrays with the sizes at which squares are summed in one pass, in two, or some so and some so."""
    return {
        k: np.linspace(-1, 1.5, int(np.prod(s)), dtype=np.float32).reshape(s) * size for k, s in TREES[kind].items()
    }


@OF_EACH_KIND
def test_norms_of_every_size_in_compiled_programs(kind):
    run = jax.jit(lambda g: (gradtx.global_norm(g), updated_alone(gradtx.clip_by_block_rms(1.0), g)))
    for power in range(-102, 121, 6):
        g = of_kind(kind, np.float32(2.0**power))
        found, clipped = run(g)
        np.testing.assert_allclose(np.float64(found), norm(g), rtol=1e-6, err_msg=str(power))
        rms = {k: norm([x]) / x.size**0.5 for k, x in g.items()}
        assert_close(clipped, {k: scaled(x, min(1.0, 1 / rms[k])) for k, x in g.items()}, rtol=2e-6)


@OF_EACH_KIND
@pytest.mark.parametrize("size", [1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_derivatives_of_every_size(kind, size):
    """Also where a number divided by one of the other scales is infinite."""
    g = of_kind(kind, np.float32(size))
    found = jax.jit(jax.grad(gradtx.global_norm))(g)
    assert_close(found, scaled(g, 1 / norm(g)), rtol=1e-5)
    along = jax.jit(lambda g: jax.jvp(gradtx.global_norm, (g,), (g,))[1])(g)
    np.testing.assert_allclose(np.float64(along), norm(g), rtol=1e-5)


@pytest.mark.parametrize("count", [2, 33, 100])
def test_norms_of_many_leaves(count):
    g = [np.full(3, i + 1, np.float32) for i in range(count)]
    np.testing.assert_allclose(jax.jit(gradtx.global_norm)(g), norm(g), rtol=1e-6)
    np.testing.assert_allclose(gradtx.global_norm(g), norm(g), rtol=1e-6)


def test_a_limit_that_is_reached_only_by_large_numbers_asks_for_no_small_ones():
    """Below it a norm need not be known; a norm below a limit that is as small is."""
    g = of_kind("small", np.float32(1e-25))
    for limit in (1.0, 1e-26):
        found = jax.jit(lambda g, limit=limit: updated_alone(gradtx.clip_by_norm(limit), g))(g)
        assert_close(found, {k: scaled(x, min(1.0, limit / norm([x]))) for k, x in g.items()})


def updated_alone(tx, g):
    return tx.update(g, tx.init(g))[0]


@pytest.mark.parametrize(("kind", "branches"), [("small", 0), ("large", 1), ("mixed", 1)])
def test_the_second_pass_runs_only_where_it_is_needed(kind, branches):
    """In the compiled program it is a branch, with nothing of small arrays, which are summed for all scales at once."""
    text = jax.jit(gradtx.global_norm).lower(of_kind(kind, np.float32(1.0))).as_text()
    assert text.count("stablehlo.case") == branches
