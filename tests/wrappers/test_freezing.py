# SPDX-License-Identifier: Apache-2.0
import chex
import jax
import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {"head": jnp.ones(3), "body": {"w": jnp.full((2, 3), 0.5), "b": jnp.zeros(3)}}
MASKS = [
    {"head": False, "body": True},
    {"head": False, "body": {"w": True, "b": True}},
    lambda params: {"head": False, "body": True},
]


@pytest.mark.parametrize("mask", MASKS)
def test_frozen_updates_are_zero(mask):
    tx = gradtx.freeze(mask)
    grads = PARAMS | {"body": {"w": jnp.full((2, 3), jnp.nan), "b": jnp.ones(3)}}
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates, {"head": PARAMS["head"], "body": jax.tree.map(jnp.zeros_like, PARAMS["body"])})


def test_freezing_keeps_none():
    tx = gradtx.freeze(True)
    updates, _ = tx.update({"w": None, "b": jnp.ones(2)}, tx.init({"w": jnp.ones(1), "b": jnp.ones(2)}))
    assert updates["w"] is None


@pytest.mark.parametrize("mask", MASKS)
def test_the_optimizer_sees_what_is_not_frozen(mask):
    inner = gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.adam(0.1))
    tx = gradtx.selective_transform(inner, freeze_mask=mask)
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    head, _ = inner.update(PARAMS["head"], inner.init(PARAMS["head"]), PARAMS["head"])
    chex.assert_trees_all_equal(updates, {"head": head, "body": jax.tree.map(jnp.zeros_like, PARAMS["body"])})
    assert sum(x.size for x in jax.tree.leaves(state)) == 2 * 3 + 1


@pytest.mark.parametrize("flag", [True, False])
def test_all_or_nothing_may_be_frozen(flag):
    tx = gradtx.selective_transform(gradtx.sgd(1.0), freeze_mask=flag)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates, jax.tree.map(lambda p: jnp.zeros_like(p) if flag else -p, PARAMS))


@pytest.mark.parametrize("mask", MASKS)
def test_split_and_join(mask):
    trained, frozen = gradtx.split_frozen(PARAMS, mask)
    chex.assert_trees_all_equal(trained, {"head": PARAMS["head"], "body": {"w": None, "b": None}})
    chex.assert_trees_all_equal(frozen, {"head": None, "body": PARAMS["body"]})
    chex.assert_trees_all_equal(gradtx.join_frozen(trained, frozen), PARAMS)
    chex.assert_trees_all_equal(gradtx.join_frozen(frozen, trained), PARAMS)


def test_errors():
    with pytest.raises(ValueError, match=r"split_frozen: .*nothing for \['body'\]\['b'\], \['body'\]\['w'\]"):
        gradtx.split_frozen(PARAMS, {"head": True})
    with pytest.raises(TypeError, match=r"freeze_mask must hold True or False at \['head'\], got 1"):
        gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask={"head": 1, "body": True})
    with pytest.raises(TypeError, match="selective_transform: optimizer must be a transformation, got the factory sgd"):
        gradtx.selective_transform(gradtx.sgd, freeze_mask=True)
    with pytest.raises(ValueError, match="join_frozen: .* must not have a value at the same place"):
        gradtx.join_frozen(PARAMS, PARAMS)
    with pytest.raises(ValueError, match="join_frozen: the trees do not match"):
        gradtx.join_frozen(PARAMS, {"head": None})
