# SPDX-License-Identifier: Apache-2.0
"""Shapes that differ and have one meaning: masks of examples, several axes of classes, one target for several."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import losses

pytestmark = pytest.mark.usefixtures("standard_promotion")

X = jax.random.normal(jax.random.key(0), (2, 3, 4))
P = jax.nn.softmax(jax.random.normal(jax.random.key(1), (2, 3, 4)), axis=(0, 1, 2))
EXAMPLES = {-1: np.array([[1, 0, 1], [0, 1, 1]], bool), 1: np.array([[1, 0, 1, 1], [0, 1, 0, 1]], bool)}


@pytest.mark.slow
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "softmax_cross_entropy_with_integer_labels"])
def test_a_mask_of_examples(name, axis):
    where = jnp.asarray(EXAMPLES[axis])
    labels = P if name == "softmax_cross_entropy" else jnp.full(where.shape, 2)
    found = getattr(losses, name)(X, labels, axis=axis, where=where)
    np.testing.assert_allclose(found, getattr(optax.losses, name)(X, labels, axis=axis, where=where), rtol=1e-5)
    assert not np.any(found[~EXAMPLES[axis]])


def test_a_mask_of_examples_in_the_losses_of_classes():
    """As the same mask with an axis of size 1 in the place of the classes."""
    where, labels = jnp.asarray(EXAMPLES[-1]), jnp.full((2, 3), 2)
    for loss, args in (
        (losses.poly_loss_cross_entropy, (X, P)),
        (losses.z_loss, (X,)),
        (losses.multiclass_hinge_loss, (X, labels)),
        (losses.multiclass_sparsemax_loss, (X, labels)),
    ):
        np.testing.assert_array_equal(loss(*args, where=where), loss(*args, where=where[..., None]))


@pytest.mark.parametrize("axis", [(2, 1), (-1,)])
def test_integer_labels_of_several_axes(axis):
    rest = [n for i, n in enumerate(X.shape) if i not in {a % 3 for a in axis}]
    labels = jax.random.randint(jax.random.key(2), rest, 0, 4)
    found = losses.softmax_cross_entropy_with_integer_labels(X, labels, axis=axis)
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(X, labels, axis=axis)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["sigmoid_binary_cross_entropy", "sigmoid_focal_loss", "hinge_loss", "sparsemax_loss", "huber_loss"]
)
def test_one_target_for_several_predictions(name):
    target = jnp.asarray([[1.0], [0.0]])
    found = getattr(losses, name)(X[:, 0], target)
    np.testing.assert_allclose(found, getattr(optax.losses, name)(X[:, 0], target), rtol=1e-5)
    with pytest.raises(ValueError, match="nothing is broadcast"):  # a table of all pairs, which nobody means
        getattr(losses, name)(X[:, 0, 0], target)


def test_a_mask_of_one_channel():
    targets = jnp.asarray(EXAMPLES[-1], jnp.float32)
    for x, y in ((X[..., :1], targets), (X[..., 0], targets[..., None])):
        np.testing.assert_allclose(losses.binary_dice_loss(x, y), optax.losses.binary_dice_loss(x, y), rtol=1e-5)


def test_fenchel_young_losses_of_functions_of_one_vector():
    """`logsumexp` without an axis takes a batch for one vector, as optax's tests have it."""
    labels = jax.nn.one_hot(jnp.asarray([[0, 1, 3], [2, 2, 1]]), 4)
    for largest in (jax.nn.logsumexp, lambda x: jnp.max(x)):
        found = losses.make_fenchel_young_loss(largest)(X, labels)
        np.testing.assert_allclose(found, optax.losses.make_fenchel_young_loss(largest)(X, labels), rtol=1e-5)
