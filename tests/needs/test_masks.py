# SPDX-License-Identifier: Apache-2.0
"""Masks and labels are found by names, in trees of any library; what they hide is seen by nobody."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")
FLAT = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
NESTED = {"a": jnp.ones(2), "b": {"c": jnp.ones(2), "d": jnp.ones(1)}}
BY_NAME = {"kernel": True, "bias": False}
INNER, OUTER = {"a": True, "b": {"c": True, "d": False}}, {"a": True, "b": False}


def frozen_dict(tree):
    from flax.core import FrozenDict

    return FrozenDict(tree)


def layer(**fields):
    """A module of equinox that can be called."""
    import equinox as eqx

    class Layer(eqx.Module):
        kernel: object
        bias: object

        def __call__(self, x):
            return x @ self.kernel + self.bias

    return Layer(**fields)


def state_of_a_module():
    from flax import nnx

    return nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Param)


TREES = {
    "dict": lambda: dict(FLAT),
    "FrozenDict": lambda: frozen_dict(FLAT),
    "a module that can be called": lambda: layer(**FLAT),
    "nnx.State": state_of_a_module,
}


def one_step(tx, params):
    """The sums of the updates for gradients of ones, by the last name on the path that is no `value`."""
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    found = {}
    for path, u in jax.tree_util.tree_leaves_with_path(updates):
        names = [str(getattr(k, "key", getattr(k, "name", ""))) for k in path]
        found[[n for n in names if n != "value"][-1]] = float(jnp.mean(u))
    return found


def only_matrices(tree):
    return jax.tree.map(lambda p: p.ndim > 1, tree)


def labels_of_matrices(tree):
    return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "rest", tree)


# Optax.


@pytest.mark.parametrize("kind", ["FrozenDict", "nnx.State"])
def test_optax_wants_the_same_containers(kind):
    with pytest.raises(ValueError, match="pytree structure error: different types"):
        optax.masked(optax.sgd(1.0), BY_NAME).init(TREES[kind]())


def test_optax_calls_modules_of_labels():
    labels = layer(kernel="matrix", bias="rest")
    with pytest.raises(TypeError):
        optax.partition({"matrix": optax.sgd(1.0), "rest": optax.sgd(0.5)}, labels).init(layer(**FLAT))


def test_optax_masks_inside_masks_of_branches_fail():
    with pytest.raises(ValueError, match="MaskedNode"):
        optax.masked(optax.masked(optax.sgd(1.0), INNER), OUTER).init(NESTED)


def test_optax_takes_anything_for_a_flag():
    optax.masked(optax.sgd(1.0), {"kernel": True, "bias": "no"}).init(FLAT)


# gradtx.


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("how", ["names", "same tree", "function"])
def test_masks_in_all_trees(kind, how):
    params = TREES[kind]()
    mask = {"names": BY_NAME, "same tree": only_matrices(params), "function": only_matrices}[how]
    assert one_step(gt.masked(gt.sgd(0.5), mask), params) == {"kernel": -0.5, "bias": 1.0}


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("how", ["names", "same tree", "function"])
def test_labels_in_all_trees(kind, how):
    params = TREES[kind]()
    names = {"kernel": "matrix", "bias": "rest"}
    labels = {"names": names, "same tree": labels_of_matrices(params), "function": labels_of_matrices}[how]
    tx = gt.partition({"matrix": gt.sgd(0.5), "rest": gt.sgd(2.0)}, labels)
    assert one_step(tx, params) == {"kernel": -0.5, "bias": -2.0}


@pytest.mark.parametrize("kind", TREES)
def test_frozen_by_name_in_all_trees(kind):
    params = TREES[kind]()
    assert one_step(gt.selective_transform(gt.sgd(0.5), freeze_mask=BY_NAME), params) == {"kernel": 0.0, "bias": -0.5}
    trained, frozen = gt.split_frozen(params, BY_NAME)
    assert len(jax.tree.leaves(trained)) == len(jax.tree.leaves(frozen)) == 1
    assert jax.tree.structure(gt.join_frozen(trained, frozen)) == jax.tree.structure(params)


@pytest.mark.parametrize("wrap", [functools.partial, jax.tree_util.Partial])
def test_partial_functions_are_functions(wrap):
    assert one_step(gt.masked(gt.sgd(0.5), wrap(only_matrices)), FLAT) == {"kernel": -0.5, "bias": 1.0}


def test_an_nnx_optimizer_takes_a_mask_by_names():
    from flax import nnx

    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.state(model))
    optimizer = nnx.Optimizer(model, gt.masked(gt.adam(0.1), BY_NAME), wrt=nnx.Param)
    grads = nnx.grad(lambda m: jnp.sum(m(jnp.ones((1, 3)))))(model)
    optimizer.update(model, grads)
    np.testing.assert_allclose(model.kernel[...], before["kernel"][...] - 0.1, rtol=1e-4)
    np.testing.assert_allclose(model.bias[...], before["bias"][...] + 1.0)  # the gradient passes


def test_masks_inside_masks():
    assert one_step(gt.masked(gt.masked(gt.sgd(0.5), INNER), OUTER), NESTED) == {"a": -0.5, "c": 1.0, "d": 1.0}
    assert one_step(gt.masked(gt.masked(gt.sgd(0.5), OUTER), INNER), NESTED) == {"a": -0.5, "c": 1.0, "d": 1.0}
    frozen = frozen_dict(INNER)  # other containers than those of the parameters, of which a part is hidden
    assert one_step(gt.masked(gt.masked(gt.sgd(0.5), frozen), OUTER), NESTED) == {"a": -0.5, "c": 1.0, "d": 1.0}
    assert one_step(optax.masked(gt.masked(gt.sgd(0.5), INNER), OUTER), NESTED) == {"a": -0.5, "c": 1.0, "d": 1.0}


def test_what_is_hidden_is_not_seen():
    def update(updates, state, params=None):
        seen = [*jax.tree.leaves(updates, is_leaf=lambda x: x is None), *jax.tree.leaves(params)]
        assert len(seen) == 2 and all(isinstance(x, jax.Array) for x in seen)
        return updates, state

    spy = gt.GradientTransformation(lambda params: (), update)
    one_step(gt.masked(spy, BY_NAME), FLAT)
    one_step(gt.partition({True: spy, False: spy}, BY_NAME), FLAT)


def test_all_true_is_the_transformation_bit_for_bit():
    tx = gt.chain(gt.clip_by_global_norm(0.1), gt.adamw(0.1))
    masked = gt.masked(tx, jax.tree.map(lambda p: True, NESTED))
    state, masked_state = tx.init(NESTED), masked.init(NESTED)
    for _ in range(3):
        updates, state = jax.jit(tx.update)(NESTED, state, NESTED)
        found, masked_state = jax.jit(masked.update)(NESTED, masked_state, NESTED)
        jax.tree.map(np.testing.assert_array_equal, found, updates)
    jax.tree.map(np.testing.assert_array_equal, masked_state.inner_state, state)


@pytest.mark.parametrize("kind", TREES)
def test_errors_name_the_path(kind):
    params = TREES[kind]()
    with pytest.raises(
        ValueError, match=r"mask has nothing for \S*bias\S* and an entry at \['bais'\], where there is no"
    ):
        gt.masked(gt.sgd(1.0), {"kernel": True, "bais": False}).init(params)
    with pytest.raises(ValueError, match=r"mask has nothing for \S*bias"):
        gt.masked(gt.sgd(1.0), {"kernel": True, "bias": None}).init(params)
    with pytest.raises(TypeError, match=r"mask must hold True or False at \['bias'\], got 'no'"):
        gt.masked(gt.sgd(1.0), {"kernel": True, "bias": "no"})


# Paths instead of trees.


@pytest.mark.parametrize("kind", TREES)
def test_paths_are_the_same_in_all_trees(kind):
    params = TREES[kind]()
    assert one_step(gt.masked(gt.sgd(0.5), gt.where("kernel")), params) == {"kernel": -0.5, "bias": 1.0}
    assert one_step(gt.groups([("bias", {"learning_rate": 2.0})], gt.sgd(0.5)), params) == {
        "kernel": -0.5,
        "bias": -2.0,
    }
