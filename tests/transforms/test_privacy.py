# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx as gt
from gradtx.core._transformation import with_extra_args_support
from gradtx.testing import check_contract

PARAMS = {"b": jnp.ones(3), "w": jnp.ones((2, 3))}
EXAMPLES = jax.tree.map(
    lambda p: jnp.asarray(np.random.default_rng(p.size).normal(size=(5, *p.shape)), jnp.float32), PARAMS
)


@pytest.mark.slow
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("differentially_private_aggregate", (1.0, 0.5, 3)),
        ("differentially_private_aggregate", (0.3, 0.0, 3)),
        ("dpsgd", (0.1, 1.0, 0.5, 3)),
        ("dpsgd", (0.1, 1.0, 0.5, 3, 0.9, True)),
    ],
)
@pytest.mark.filterwarnings("ignore:.seed. is deprecated:DeprecationWarning")  # optax's dpsgd uses it itself
@pytest.mark.usefixtures("standard_promotion")
def test_the_same_numbers_and_state_as_optax(name, args, x64):
    with jax.enable_x64(x64):
        params, examples = jax.tree.map(lambda x: jnp.asarray(x, float), (PARAMS, EXAMPLES))
        ours, theirs = getattr(gt, name)(*args), getattr(optax.contrib, name)(*args)
        state, their_state = ours.init(params), theirs.init(params)
        for _ in range(5):
            updates, state = jax.jit(ours.update)(examples, state, params)
            their_updates, their_state = jax.jit(theirs.update)(examples, their_state, params)
            for n in params:
                atol = 1e-12 if x64 else 1e-6
                np.testing.assert_allclose(updates[n], their_updates[n], rtol=0, atol=atol)
                assert updates[n].dtype == their_updates[n].dtype
        shown = [
            [(jax.tree_util.keystr(k), x.shape, x.dtype) for k, x in jax.tree_util.tree_leaves_with_path(s)]
            for s in (state, their_state)
        ]
        assert shown[0] == shown[1]


@gt.transformation
def of_two_examples(inner: gt.GradientTransformation) -> gt.GradientTransformationExtraArgs:
    """Makes gradients of two examples of each gradient."""
    tx = with_extra_args_support(inner)

    def update(updates, state, params=None, **extra):
        return tx.update(jax.tree.map(lambda g: jnp.stack([g, 2 * g]), updates), state, params, **extra)

    return gt.GradientTransformationExtraArgs(tx.init, update)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tx",
    [
        gt.differentially_private_aggregate(1.0, 0.5, 3),
        gt.dpsgd(0.1, 1.0, 0.5, 3, 0.9),
        gt.differentially_private_aggregate(lambda count: 1.0, lambda count: 0.5, seed=3),
    ],
)
def test_contract(tx):
    check_contract(of_two_examples(tx), PARAMS)


def test_keys():
    """A key and the seed it is made from give the same state."""
    for tx in (
        gt.differentially_private_aggregate(1.0, 0.5, jax.random.PRNGKey(3)),
        gt.differentially_private_aggregate(1.0, 0.5, jax.random.key(3)),
        gt.differentially_private_aggregate(1.0, 0.5, seed=3),
    ):
        assert tx.init(PARAMS).rng_key == jax.random.key(3)


def test_bad_input():
    with pytest.raises(ValueError, match="give a key or a seed"):
        gt.differentially_private_aggregate(1.0, 0.5)
    with pytest.raises(TypeError, match="key must be a key of jax.random or a whole number, got 0.5"):
        gt.differentially_private_aggregate(1.0, 0.5, 0.5)
    tx = gt.differentially_private_aggregate(1.0, 0.5, 3)
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"the gradient at \['b'\] has shape \(3,\), its parameter has shape \(3,\)"):
        tx.update(PARAMS, state, PARAMS)
    with pytest.raises(ValueError, match=r"the same number of examples, at least 1, .* got \(5, 3\) at \['b'\]"):
        tx.update({"b": EXAMPLES["b"], "w": EXAMPLES["w"][:2]}, state, PARAMS)
    with pytest.raises(ValueError, match=r"got \(0, 3\) at \['b'\]"):
        tx.update(jax.tree.map(lambda g: g[:0], EXAMPLES), state)
    with pytest.raises(TypeError, match="state must be the DifferentiallyPrivateAggregateState that init"):
        tx.update(EXAMPLES, PARAMS, state)


def test_low_precision_gradients_are_clipped_and_averaged_in_float32():
    tx = gt.differentially_private_aggregate(1.0, 0.0, 3)
    g = jnp.full((4, 1000), 300.0, jnp.float16)
    updates, _ = tx.update(g, tx.init(g[0]), g[0])
    np.testing.assert_array_equal(updates, np.full(1000, 1000**-0.5, np.float16))
