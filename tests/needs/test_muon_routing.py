# SPDX-License-Identifier: Apache-2.0
"""Muon gets the hidden matrices, stacked ones, convolutions and heads too, and not embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx import Role

pytestmark = pytest.mark.usefixtures("standard_promotion")
SHAPES = {"embed": (11, 4), "layers": (3, 4, 6), "query": (3, 4, 2, 5), "conv": (3, 3, 4, 6), "norm": (3, 4)}
DRAWS = np.random.default_rng(0)
PARAMS = {n: jnp.asarray(DRAWS.normal(size=shape), jnp.float32) for n, shape in SHAPES.items()}
RULES = (
    ("embed", Role("embedding")),
    ("layers", Role("hidden", stack=0, in_axes=1, out_axes=2)),
    ("query", Role("hidden", stack=0, in_axes=1, out_axes=(2, 3), heads=2)),
    ("conv", Role("hidden", in_axes=(0, 1, 2), out_axes=3)),
    ("norm", Role("norm", stack=0)),
)


def updates_of(tx):
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]


def singular_values(x):
    return jnp.linalg.svd(x, compute_uv=False)


def is_of_adam(update, rate):
    """Whether it is the first update of Adam, of signs."""
    return bool(jnp.all(jnp.abs(jnp.abs(update) - rate) < 1e-3 * rate))


# Optax.


def test_optax_sends_embeddings_to_muon_and_stacked_matrices_to_adam():
    updates = updates_of(optax.contrib.muon(1.0, nesterov=False))
    assert not is_of_adam(updates["embed"], 1.0)
    assert all(is_of_adam(updates[n], 1.0) for n in ("layers", "query", "conv"))
    assert not is_of_adam(updates["norm"], 1.0)  # the scales of three norms, taken for a matrix


# gradtx.


def test_roles_send_hidden_matrices_to_muon():
    updates = updates_of(gt.with_roles(RULES, gt.muon(1.0, nesterov=False)))
    assert [n for n, u in updates.items() if is_of_adam(u, 1.0)] == ["embed", "norm"]


@pytest.mark.parametrize(
    ("role", "shape", "to_muon"),
    [
        (gt.Role("hidden"), (4, 6), True),
        (gt.Role("hidden", in_axes=0, out_axes=(1, 2)), (4, 6, 2), True),
        (gt.Role("hidden", in_axes=0), (4, 6, 2), False),
        (gt.Role("other"), (4, 6), True),
        (gt.Role("other", in_axes=0, out_axes=(1, 2)), (4, 6, 2), False),
    ],
)
def test_of_other_ranks_only_hidden_parameters_with_both_axes_are_matrices(role, shape, to_muon):
    tx = gt.with_roles([("**", role)], gt.muon(1.0))
    state = jax.eval_shape(tx.init, {"w": jnp.zeros(shape)})
    held = [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(state) if x.shape == shape]
    assert len(held) == (1 if to_muon else 2)  # Adam keeps two moments


def test_each_layer_and_each_head_is_a_matrix():
    tx = gt.with_roles(RULES, gt.muon(1.0, nesterov=False, consistent_rms=None, ns_steps=8))
    updates = updates_of(tx)
    layers = singular_values(updates["layers"])
    heads = singular_values(jnp.moveaxis(updates["query"], 2, 1))
    conv = singular_values(updates["conv"].reshape(-1, 6))
    for values, factor in ((layers, (6 / 4) ** 0.5), (heads, (5 / 4) ** 0.5), (conv, 1.0)):
        assert np.all(np.abs(values / factor - 0.95) < 0.35)
    alone = gt.muon(1.0, nesterov=False, ns_steps=8)
    for i in range(3):
        layer = PARAMS["layers"][i]
        np.testing.assert_allclose(updates["layers"][i], alone.update(layer, alone.init(layer), layer)[0], atol=1e-4)


def test_a_guess_is_right_for_names_of_libraries():
    params = {
        "embed": {"embedding": PARAMS["embed"]},
        "layers": {"up": {"kernel": PARAMS["layers"]}, "norm": {"scale": PARAMS["norm"]}},
        "lm_head": {"kernel": PARAMS["layers"][0]},
    }
    tx = gt.with_roles(gt.infer_roles, gt.muon(1.0, nesterov=False))
    updates, _ = tx.update(params, tx.init(params), params)
    routed = jax.tree.map(lambda u: "adam" if is_of_adam(u, 1.0) else "muon", updates)
    assert routed == {
        "embed": {"embedding": "adam"},
        "layers": {"up": {"kernel": "muon"}, "norm": {"scale": "adam"}},
        "lm_head": {"kernel": "adam"},
    }
