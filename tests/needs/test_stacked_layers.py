# SPDX-License-Identifier: Apache-2.0
"""Layers that are stacked for a scan are trained as the same layers in a row would be."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")
LAYERS = 4
DRAWS = np.random.default_rng(0)
SIZES = np.array([0.5, 1.0, 2.0, 4.0]).reshape(LAYERS, 1, 1)
PARAMS = {"w": jnp.asarray(DRAWS.normal(size=(LAYERS, 6, 5)), jnp.float32)}
GRADIENTS = {"w": jnp.asarray(SIZES * DRAWS.normal(size=(LAYERS, 6, 5)), jnp.float32)}
SMALL = {"min_dim_size_to_factor": 2}
TRANSFORMS = {
    "scale_by_trust_ratio": lambda library: library.scale_by_trust_ratio(),
    "lamb": lambda library: library.lamb(0.1),
    "lars": lambda library: library.lars(0.1),
    "novograd": lambda library: library.novograd(0.1),
    "fromage": lambda library: library.fromage(0.1),
    "adafactor": lambda library: library.adafactor(0.1, **SMALL),
    "clip_by_block_rms": lambda library: library.clip_by_block_rms(1.0),
    "adaptive_grad_clip": lambda library: library.adaptive_grad_clip(0.3),
    "muon": lambda library: library.muon(0.1) if library is gt else library.contrib.muon(0.1),
}
ROLES = (("w", gt.Role("hidden", stack=0, in_axes=1, out_axes=2)),)
LAYER = (("w/*", gt.Role("hidden", in_axes=0, out_axes=1)),)


def in_a_row(tree):
    return {"w": [x for x in tree["w"]]}


def update(tx, of=lambda tree: tree):
    """The second update, in which what was remembered counts."""
    params, gradients = of(PARAMS), of(GRADIENTS)
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(gradients, state, params)
    return jnp.stack(list(updates["w"]))


def deviation(found, expected):
    """How far the updates of the layers are from what they should be, as a part of those."""
    difference = jnp.linalg.norm((found - expected).reshape(LAYERS, -1), axis=1)
    return float(jnp.max(difference / jnp.linalg.norm(expected.reshape(LAYERS, -1), axis=1)))


# Optax.


@pytest.mark.parametrize("name", TRANSFORMS)
def test_optax_trains_stacked_layers_otherwise(name):
    tx = TRANSFORMS[name](optax)
    assert deviation(update(tx), update(tx, in_a_row)) > 0.05


def test_the_table_of_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "roles.md").read_text()
    table = dict(re.findall(r"^\| `(\w+)` \| (\d+) % \| 0 \|$", page, re.MULTILINE))
    assert list(table) == list(TRANSFORMS)
    for name, percent in table.items():
        tx = TRANSFORMS[name](optax)
        assert abs(100 * deviation(update(tx), update(tx, in_a_row)) - int(percent)) < 1


def test_optax_decays_the_scales_of_stacked_norms():
    """By the mask of its documentation, which is meant to leave out vectors."""
    tx = optax.adamw(1.0, weight_decay=1.0, mask=lambda params: jax.tree.map(lambda p: p.ndim != 1, params))
    scales, zeros = jnp.ones((LAYERS, 5)), jnp.zeros((LAYERS, 5))
    assert np.all(tx.update(zeros, tx.init(scales), scales)[0] == -1.0)
    assert not np.any(tx.update(zeros[0], tx.init(scales[0]), scales[0])[0])


# gradtx.


@pytest.mark.parametrize("name", TRANSFORMS)
def test_stacked_layers_are_layers(name):
    tx = TRANSFORMS[name](gt)
    found, expected = update(gt.with_roles(ROLES, tx)), update(gt.with_roles(LAYER, tx), in_a_row)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["scale_by_trust_ratio", "lamb", "novograd", "clip_by_block_rms"])
def test_those_of_optax_too(name):
    """Taken apart for it, the layers are leaves."""
    tx = TRANSFORMS[name](optax)
    found = update(gt.with_roles(ROLES, gt.unstacked(tx)))
    np.testing.assert_allclose(found, update(tx, in_a_row), rtol=1e-5, atol=1e-6)


def test_masks_by_rank_see_one_layer():
    tx = gt.adamw(1.0, weight_decay=1.0, mask=lambda params: jax.tree.map(lambda p: p.ndim != 1, params))
    scales, zeros = {"scale": jnp.ones((LAYERS, 5))}, {"scale": jnp.zeros((LAYERS, 5))}
    tx = gt.with_roles((("scale", gt.Role("norm", stack=0)),), tx)
    assert not np.any(tx.update(zeros, tx.init(scales), scales)[0]["scale"])
