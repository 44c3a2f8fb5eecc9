# SPDX-License-Identifier: Apache-2.0
"""What the formulas do not show of the rules in tests/formulas/scaled.py: edges, memory, masks, keys, errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

TREE = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3), "b": jnp.full(3, 0.5, jnp.float32)}

RULES = [
    gt.lion(0.1),
    gt.lion(0.1, mode="smooth"),
    gt.signum(0.1),
    gt.lars(0.1, 0.1),
    gt.lamb(0.1, weight_decay=0.1),
    gt.fromage(0.1),
    gt.optimistic_adam_v2(0.1),
    gt.noisy_sgd(0.1),
    gt.polyak_sgd(),
    gt.adafactor(0.1, 2),
    gt.adafactor_big_vision(0.1, min_dim_size_to_factor=2),
    gt.came(0.1),
    gt.adam_mini(0.1),
]


def one_update(tx, g, p, **extra):
    return tx.update(g, tx.init(p), p, **extra)[0]


def ones_like(tree):
    return jax.tree.map(jnp.ones_like, tree)


def zeros_like(tree):
    return jax.tree.map(jnp.zeros_like, tree)


@pytest.mark.slow
@pytest.mark.parametrize("tx", RULES, ids=repr)
@pytest.mark.parametrize("p", [TREE, zeros_like(TREE)], ids=["parameters", "zeros"])
def test_zero_gradients_are_finite_and_so_are_the_derivatives(tx, p):
    def total(g, p):
        state, found = tx.init(p), 0.0
        for _ in range(2):
            u, state = tx.update(g, state, p, value=jnp.float32(1.0))
            found = found + sum(jnp.sum(x) for x in jax.tree.leaves(u))
        return found

    for g in (zeros_like(TREE), ones_like(TREE)):
        value, gradients = jax.value_and_grad(total, argnums=(0, 1))(g, p)
        assert np.isfinite(value) and all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


@pytest.mark.parametrize("tx", RULES, ids=repr)
def test_leaves_without_elements(tx):
    p = {"none": jnp.zeros((3, 0)), "no_row": jnp.zeros((0, 3)), "nothing": jnp.zeros(0), "one": jnp.ones((1, 1))}
    u = one_update(tx, p, p, value=1.0)
    assert jax.tree.map(jnp.shape, u) == jax.tree.map(jnp.shape, p)
    assert np.isfinite(u["one"]).all()


# Norms.


def test_ratios_with_a_norm_of_zero_are_one():
    p, g = {"w": jnp.asarray([3.0, 4.0])}, {"w": jnp.asarray([0.3, 0.4])}
    for tx in (gt.scale_by_trust_ratio(0.0, 0.01), gt.scale_by_lars(0.0, 0.01)):
        np.testing.assert_allclose(one_update(tx, g, zeros_like(p))["w"], g["w"])
        np.testing.assert_allclose(one_update(tx, zeros_like(g), p)["w"], 0)
    np.testing.assert_allclose(one_update(gt.fromage(0.1, 0.0), g, zeros_like(p))["w"], -0.1 / 1.01**0.5 * g["w"])


def test_lars_decays_without_a_gradient():
    p = {"w": jnp.asarray([3.0, 4.0])}
    np.testing.assert_allclose(one_update(gt.scale_by_lars(0.5, 0.01), zeros_like(p), p)["w"], 0.01 * p["w"], rtol=1e-6)


def test_lars_masks_are_checked_with_the_path():
    with pytest.raises(TypeError, match=r"mask must hold True or False at \['w'\], got 1"):
        gt.lars(0.1, weight_decay_mask={"w": 1, "b": True}).init(TREE)


def test_fromage_shrinks_by_the_square_of_a_tiny_rate():
    u = one_update(gt.fromage(1e-5), zeros_like(TREE), TREE)
    np.testing.assert_allclose(u["b"], -0.5e-10 * TREE["b"], rtol=1e-6)


# Noise.


def noise_of(tree, tx=None, steps=1):
    tx = tx or gt.add_noise(0.5, 0.55, seed=3)
    state, g = tx.init(tree), jax.tree.map(lambda x: None if x is None else jnp.zeros_like(x), tree)
    for _ in range(steps):
        u, state = tx.update(g, state)
    return u


def test_noise_does_not_depend_on_the_order_of_keys_or_on_holes():
    turned = dict(reversed(TREE.items()))
    np.testing.assert_array_equal(noise_of(TREE)["w"], noise_of(turned)["w"])
    np.testing.assert_array_equal(noise_of(TREE)["w"], noise_of({**TREE, "b": None})["w"])
    assert not np.array_equal(noise_of(TREE)["b"], noise_of(TREE)["w"][0])


def test_noise_fades_and_differs_from_step_to_step():
    tree = {"w": jnp.zeros(100_000)}
    for t in (1, 2, 5):
        noise = noise_of(tree, steps=t)["w"]
        np.testing.assert_allclose(np.var(noise), 0.5 / t**0.55, rtol=0.02)
    assert np.corrcoef(noise, noise_of(tree)["w"])[0, 1] < 0.02


def test_noise_by_key_and_by_seed_are_the_same():
    raw, typed = jax.random.PRNGKey(3), jax.random.key(3)
    of_typed = jax.jit(lambda key: noise_of(TREE, gt.add_noise(0.5, 0.55, key)))(typed)
    for u in (noise_of(TREE, gt.add_noise(0.5, 0.55, 3)), noise_of(TREE, gt.add_noise(0.5, 0.55, raw)), of_typed):
        np.testing.assert_allclose(u["w"], noise_of(TREE)["w"], rtol=1e-6)
    np.testing.assert_array_equal(
        noise_of(TREE, gt.add_noise(0.5, 0.55))["w"], noise_of(TREE, gt.add_noise(0.5, 0.55, 0))["w"]
    )


@pytest.mark.slow
def test_noise_of_complex_gradients_is_complex():
    u = noise_of({"w": jnp.zeros(10_000, jnp.complex64)})["w"]
    assert u.dtype == jnp.complex64
    np.testing.assert_allclose([np.var(u.real), np.var(u.imag)], 0.25, rtol=0.05)


def test_noise_keys_are_checked():
    with pytest.raises(ValueError, match="a key or a seed, not both"):
        gt.add_noise(0.1, 0.5, 1, seed=2)
    for bad in (1.5, True, "text"):
        with pytest.raises(TypeError, match="add_noise: key must be a key of jax.random or a whole number, got"):
            gt.add_noise(0.1, 0.5, bad)
    with pytest.raises(TypeError, match="the order is update"):
        gt.add_noise(0.1, 0.5).update(TREE, TREE)


# Polyak's step.


def test_polyak_needs_a_scalar_value():
    with pytest.raises(ValueError, match="update needs value"):
        one_update(gt.polyak_sgd(), TREE, TREE)
    with pytest.raises(ValueError, match=r"value must be a scalar, got shape \(3,\)"):
        one_update(gt.polyak_sgd(), TREE, TREE, value=jnp.ones(3))


def test_polyak_without_a_limit_solves_a_one_dimensional_square():
    p = jnp.float32(3.0)
    u = one_update(gt.polyak_sgd(float("inf"), 2.0), 2 * p, p, value=p**2)
    np.testing.assert_allclose(p + u, 0, atol=1e-6)


# Factors and blocks.


def test_factored_state_is_two_vectors():
    p = {"w": jnp.ones((3, 256, 200)), "small": jnp.ones((256, 20)), "b": jnp.ones(300)}
    state = gt.scale_by_factored_rms().init(p)
    shapes = {n: tuple(getattr(state, f)[n].shape for f in ("v_row", "v_col", "v")) for n in p}
    assert shapes == {
        "w": ((3, 200), (3, 256), (1,)),
        "small": ((1,), (1,), (256, 20)),
        "b": ((1,), (1,), (300,)),
    }


def test_factored_root_does_not_underflow_in_float32():
    g = jnp.full((2, 2), 1e-30) * jnp.asarray([[1.0, 1e-8]])
    u = one_update(gt.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=1e-33), g, g)
    assert np.isfinite(u).all() and float(u[0, 0]) > 0


def test_adam_mini_keeps_one_number_a_block():
    p = {"layers": [{"wq": jnp.ones((6, 8)), "wo": jnp.ones((6, 8))}], "emb": jnp.ones((10, 4)), "b": jnp.ones(8)}

    def blocks(path, p):
        return {"layers/0/wq": (1, 2), "emb": (-1, 1)}.get(path)

    by_path = gt.scale_by_adam_mini(blocks=blocks).init(p)
    by_tree = gt.scale_by_adam_mini(blocks={"layers": [{"wq": (1, 2), "wo": None}], "emb": (-1, 1), "b": None}).init(p)
    for state in (by_path, by_tree):
        found = jax.tree.map(jnp.shape, state.nu)
        assert found == {"layers": [{"wq": (1, 2), "wo": (1, 8)}], "emb": (10, 1), "b": (1,)}
    assert sum(x.size for x in jax.tree.leaves(by_path.nu)) == 21
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), p)
    assert {x.dtype for x in jax.tree.leaves(gt.scale_by_adam_mini(blocks=blocks).init(half).nu)} == {
        jnp.dtype("float32")
    }


def test_adam_mini_keeps_one_number_a_head_or_an_output_or_a_row_of_an_embedding():
    roles = {
        "query": gt.Role("hidden", in_axes=0, out_axes=(1, 2), heads=1),
        "out": gt.Role("hidden", in_axes=(0, 1), out_axes=2, heads=0),
        "table": gt.Role("embedding", in_axes=0, out_axes=1),
    }
    p = {"query": jnp.ones((6, 3, 2)), "out": jnp.ones((3, 2, 6)), "table": jnp.ones((5, 4))}
    state = gt.with_roles(list(roles.items()), gt.scale_by_adam_mini()).init(p)
    assert jax.tree.map(jnp.shape, state.nu) == {"query": (1, 3, 1), "out": (1, 1, 6), "table": (5, 1)}


def test_adam_mini_with_a_block_an_element_is_adam():
    ours = gt.adam_mini(0.1, blocks=lambda path, p: (-1,) * p.ndim)
    u, expected = (one_update(tx, ones_like(TREE), TREE) for tx in (ours, gt.adam(0.1)))
    chex.assert_trees_all_close(u, expected, rtol=1e-6)


def test_adam_mini_blocks_may_have_schedules_beside_them():
    tx = gt.adam_mini(0.1, lambda count: 0.9, blocks=lambda path, p: (1,) * p.ndim)
    u, expected = (one_update(t, ones_like(TREE), TREE) for t in (tx, tx.replace(b1=0.9)))
    chex.assert_trees_all_close(u, expected, rtol=1e-5)


def test_adam_mini_blocks_are_checked_with_the_path():
    for blocks, message in [
        ({"w": (3, 1), "b": None}, r"at \['w'\]: 3 does not divide axis 0 of shape \(4, 3\)"),
        ({"w": (0, 1), "b": None}, r"at \['w'\]: 0 does not divide"),
        ({"w": (1,), "b": None}, r"at \['w'\] must be a tuple of 2 whole numbers"),
        (lambda path, p: 2, r"at \['b'\] must be a tuple of 1 whole numbers, .* got 2"),
        ({"w": None}, r"the parameters have \['b'\], which the blocks lack"),
    ]:
        with pytest.raises(ValueError, match=message):
            gt.adam_mini(0.1, blocks=blocks).init(TREE)
