# SPDX-License-Identifier: Apache-2.0
"""What bounded, slowed and projected Adam are in their limits, and where their options reach."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

PARAMS = {"w": jnp.array([[1.0, -2.0, 0.5], [3.0, 1.0, -1.0]]), "b": jnp.array([0.5, -0.5, 2.0])}
GRADIENTS = {"w": jnp.array([[0.3, 1.0, -2.0], [0.1, -1.0, 0.2]]), "b": jnp.array([-1.0, 2.0, 1e-3])}
ROLES = [("w", gt.Role("hidden", in_axes=0, out_axes=1)), ("b", gt.Role("bias"))]


def trained(tx, steps=3):
    params, state = PARAMS, tx.init(PARAMS)
    for i in range(steps):
        updates, state = tx.update(gt.tree.scale(1 - 0.3 * i, GRADIENTS), state, params)
        params = gt.apply_updates(params, updates)
    return params


def falling(count):
    return 0.1 / (1 + count.astype(float))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tx", "same"),
    [
        (gt.adamod(falling, b3=0.0), gt.adam(falling)),
        (gt.adabound(falling, final_ratio=1.0, gamma=1e-9), gt.adam(falling)),  # bounds of 1e-9 and 1e9
        (gt.adabound(falling, b1=0.0, final_ratio=3.0, gamma=1e9), gt.sgd(lambda count: 3 * falling(count))),
        (
            gt.adabound(falling, amsbound=True, gamma=1e-9, final_ratio=1.0),
            gt.amsgrad(falling, max_of_corrected=False),
        ),
        (gt.adamp(falling, weight_decay=0.1, delta=0.0), gt.adamw(falling, weight_decay=0.1)),
        (gt.adamp(falling, delta=1e9, units="last"), gt.with_roles(ROLES, gt.adamp(falling, delta=1e9, units="first"))),
    ],
    ids=str,
)
def test_limits(tx, same):
    chex.assert_trees_all_close(trained(tx), trained(same), rtol=1e-5)


def test_adamp_leaves_the_norms_of_units_alone():
    """Each step is orthogonal to the weights of each unit, the last axis; vectors take Adam's steps."""
    tx = gt.scale_by_adamp(delta=1e9)
    u, _ = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(np.sum(u["w"] * PARAMS["w"], axis=0), np.zeros(3), atol=1e-6)
    adam = gt.scale_by_adam()
    np.testing.assert_array_equal(u["b"], adam.update(GRADIENTS, adam.init(PARAMS))[0]["b"])


def test_the_bounds_of_adabound_are_scaled_by_a_schedule():
    """With a rate of 0 nothing moves, also where the lower bound is in effect."""
    tx = gt.adabound(lambda count: jnp.where(count == 0, 0.0, 0.1), gamma=1e9)
    chex.assert_trees_all_equal(trained(tx, 1), PARAMS)
    assert not np.array_equal(trained(tx, 2)["w"], PARAMS["w"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "tx",
    [
        *(make(0.1, weight_decay=0.5) for make in (gt.adamod, gt.diffgrad, gt.adabound, gt.adamp, gt.stable_adamw)),
        gt.adabelief(0.1, weight_decay=0.5),
        gt.prodigy(estim_lr0=0.1, weight_decay=0.5),
    ],
    ids=str,
)
def test_masks_of_decay_by_kind(tx):
    """Where the kind of parameter decides, inside `with_roles`, as where names do."""
    mask = "mask" if "mask" in tx.arguments else "weight_decay_mask"

    def decayed(where):
        return trained(gt.with_roles(ROLES, tx.replace(**{mask: where})), 1)

    by_kind, by_name = decayed(gt.where(gt.of_kind("hidden"))), decayed(gt.where("w"))
    chex.assert_trees_all_equal(by_kind, by_name)
    everywhere = trained(tx, 1)
    np.testing.assert_allclose(by_kind["w"], everywhere["w"], rtol=1e-6)
    assert not np.allclose(by_kind["b"], everywhere["b"], rtol=1e-6)


def test_adabelief_without_decay_has_the_state_of_before():
    assert len(gt.adabelief(0.1).init(PARAMS)) == 2
    assert gt.adabelief(0.1).update(GRADIENTS, gt.adabelief(0.1).init(PARAMS))  # and needs no parameters
