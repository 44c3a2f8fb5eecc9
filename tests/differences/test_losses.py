# SPDX-License-Identifier: Apache-2.0
"""Where the losses of optax 0.2.8 are unsafe or wrong: what they do, and what gradtx does instead."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import losses

pytestmark = pytest.mark.usefixtures("standard_promotion")

INF, NAN = jnp.inf, jnp.nan
X = jnp.asarray([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
FIRST = jnp.asarray([[1.0, 0.0, 0.0]] * 2)
theirs = optax.losses


def both(name, *args, **kwargs):
    """What optax returns, and what gradtx does."""
    return tuple(np.asarray(getattr(of, name)(*args, **kwargs)) for of in (theirs, losses))


def gradients(name, x, *args, **kwargs):
    return tuple(
        np.asarray(jax.grad(lambda z, of=of: getattr(of, name)(z, *args, **kwargs).sum())(x)) for of in (theirs, losses)
    )


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("softmax_cross_entropy", ([0.0, -INF, 0.0], [1.0, 0.0, 0.0]), np.log(2)),
        ("poly_loss_cross_entropy", ([0.0, -INF, 0.0], [1.0, 0.0, 0.0]), np.log(2) + 1),
        ("sigmoid_binary_cross_entropy", ([INF, -INF], [1.0, 0.0]), [0, 0]),
        ("kl_divergence", ([0.0, -INF], [1.0, 0.0]), 0),
        ("kl_divergence_with_log_targets", ([0.0, -INF], [0.0, -INF]), 0),
        ("cosine_similarity", ([0.0, 0.0], [1.0, 0.0]), 0),
    ],
)
def test_zero_times_infinity(name, args, expected):
    found, ours = both(name, *map(jnp.asarray, args))
    assert np.any(np.isnan(found))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_cosines_of_long_vectors():
    found, ours = both("cosine_similarity", 1e25 * X[0], X[0])
    assert found == 0
    np.testing.assert_allclose(ours, 1, rtol=1e-6)


def test_log_cosh_of_small_errors():
    found, ours = both("log_cosh", jnp.asarray([1e-4]))
    assert found == 0
    np.testing.assert_allclose(ours, 0.5e-8, rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "hinge_loss", "kl_divergence", "sigmoid_focal_loss"])
def test_labels_are_broadcast(name):
    assert np.all(np.isfinite(getattr(theirs, name)(X, FIRST[:1])))
    with pytest.raises(ValueError, match="nothing is broadcast"):
        getattr(losses, name)(X, FIRST[:1])


ONE_CLASS = jnp.full((3, 1), -10.0)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("softmax_cross_entropy", jnp.ones((3, 1))),
        ("poly_loss_cross_entropy", jnp.ones((3, 1))),
        ("softmax_cross_entropy_with_integer_labels", jnp.zeros(3, int)),
        ("multiclass_sparsemax_loss", jnp.zeros(3, int)),
        ("multiclass_hinge_loss", jnp.zeros(3, int)),
    ],
)
def test_one_class_is_always_right(name, target):
    assert not np.any(getattr(theirs, name)(ONE_CLASS, target))
    with pytest.raises(ValueError, match="at least two classes"):
        getattr(losses, name)(ONE_CLASS, target)


def test_smoothed_labels_of_one_class():
    np.testing.assert_allclose(theirs.smooth_labels(jnp.zeros((2, 1)), 0.1), 0.1)  # the other class got nothing
    with pytest.raises(ValueError, match="at least two classes"):
        losses.smooth_labels(jnp.zeros((2, 1)), 0.1)


def test_the_smallest_loss_is_not_negative():
    logits = 3 * jnp.sin(jnp.arange(3000.0)).reshape(300, 10)
    kl, ours_kl = both("kl_divergence", jax.nn.log_softmax(logits), jax.nn.softmax(logits))
    x = jnp.cos(jnp.arange(900.0)).reshape(300, 3)
    distance, ours_distance = both("cosine_distance", x, 3 * x)
    assert kl.min() < 0 <= ours_kl.min()
    assert distance.min() < 0 <= ours_distance.min()


def test_integer_labels_are_broadcast():
    assert theirs.softmax_cross_entropy_with_integer_labels(X, jnp.asarray([0])).shape == (2,)
    with pytest.raises(ValueError, match="labels must have the shape of logits without the axis"):
        losses.softmax_cross_entropy_with_integer_labels(X, jnp.asarray([0]))


def test_a_negative_label_counts_from_the_end():
    name = "softmax_cross_entropy_with_integer_labels"
    found, ours = both(name, X, jnp.asarray([-1, 2]))
    assert found[0] == found[1] and np.isnan(ours[0])
    np.testing.assert_allclose(ours[1], found[1], rtol=1e-6)


def test_a_label_that_is_no_class_has_a_margin_loss():
    found, ours = both("multiclass_hinge_loss", X, jnp.asarray([-1, 7]))
    assert np.all(np.isfinite(found)) and np.all(np.isnan(ours))


def test_the_label_of_a_masked_class():
    """The loss of optax is negative: its label is not in the sum."""
    where = jnp.asarray([[True, True, False]] * 2)
    found, ours = both("softmax_cross_entropy_with_integer_labels", X, jnp.asarray([2, 0]), where=where)
    assert found[0] < 0 and ours[0] == 0
    np.testing.assert_allclose(ours[1], found[1], rtol=1e-6)


def test_nan_behind_a_mask():
    where = jnp.asarray([[True, True, False]] * 2)
    found, ours = gradients("cosine_similarity", X.at[0, 2].set(NAN), FIRST, where=where)
    assert np.any(np.isnan(found)) and not np.any(np.isnan(ours)) and not np.any(ours[:, 2])


def test_smoothed_labels_behind_a_mask():
    where = jnp.asarray([[True, True, False]] * 2)
    found, ours = both("smooth_labels", FIRST, 0.2, where=where)
    np.testing.assert_allclose(found[:, :2], ours[:, :2], rtol=1e-6)
    assert np.all(found[:, 2] > 0) and not np.any(ours[:, 2])


def test_odd_norms_of_triplets():
    x = jnp.asarray([[1.0, -2.0]])
    found, ours = both("triplet_margin_loss", 0 * x, x, 0 * x, norm_degree=1, eps=0.0)
    np.testing.assert_allclose(ours, [4.0])
    np.testing.assert_allclose(found, [2.0])  # of 1 - 2 + ..., that is without absolute values


def test_no_pair_of_one_label():
    found, ours = both("ntxent", X, jnp.asarray([0, 1]))
    assert np.isnan(found) and ours == 0


def test_labels_of_minus_one_for_sparsemax():
    x = jnp.asarray([0.5])
    zero, _ = both("sparsemax_loss", x, jnp.asarray([0]))
    found, ours = both("sparsemax_loss", x, jnp.asarray([-1]))
    assert found != zero and ours == zero


def test_alpha_outside_its_range():
    assert np.any(theirs.sigmoid_focal_loss(X, FIRST, alpha=-1.0) < 0)
    with pytest.raises(ValueError, match="alpha"):
        losses.sigmoid_focal_loss(X, FIRST, alpha=-1.0)


def test_probabilities_for_the_binary_dice_loss():
    p, y = jnp.asarray([[0.2, 0.9]]), jnp.asarray([[0.0, 1.0]])
    with pytest.raises(ValueError, match="sum to 1"):
        theirs.binary_dice_loss(p, y, apply_sigmoid=False)
    np.testing.assert_allclose(losses.binary_dice_loss(p, y, apply_sigmoid=False), 1 - 1.9 / 2.05, rtol=1e-6)


def test_probabilities_for_the_dice_loss():
    p, y = jnp.full((1, 2, 2), 0.5), jnp.asarray([[[0.0, 1.0], [1.0, 0.0]]])
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(lambda z: theirs.dice_loss(z, y, apply_softmax=False))(p)
    ours = jax.jit(lambda z: losses.dice_loss(z, y, apply_softmax=False))(p)
    np.testing.assert_allclose(ours, theirs.dice_loss(p, y, apply_softmax=False), rtol=1e-6)


def test_a_class_that_does_not_occur():
    """It gets all the weight in optax: the other classes do not count."""
    y = jnp.zeros((1, 4, 3)).at[:, :, 0].set(1.0).at[:, 0].set(jnp.asarray([0.0, 1.0, 0.0]))
    x = jnp.zeros((1, 4, 3))
    of_theirs, of_ours = gradients("multiclass_generalized_dice_loss", x, y)
    only_absent = jax.grad(lambda z: losses.dice_loss(z, y, reduction="none")[0, 2])(x)
    np.testing.assert_allclose(of_theirs, only_absent, atol=1e-6)
    found, ours = both("dice_loss", x, y, reduction="none")
    weights = np.array([1 / 9, 1, 1])
    expected = (ours * weights).sum() / weights.sum()
    np.testing.assert_allclose(losses.multiclass_generalized_dice_loss(x, y), expected, rtol=1e-6)
    assert not np.allclose(of_theirs, of_ours, atol=1e-3)


def test_low_precision():
    x = jnp.zeros((1, 1000), jnp.bfloat16)
    found, ours = both("softmax_cross_entropy_with_integer_labels", x, jnp.asarray([0]))
    assert found.dtype == jnp.bfloat16 and ours.dtype == np.float32
    np.testing.assert_allclose(ours, np.log(1000), rtol=1e-6)


@pytest.mark.parametrize("batch", [(), (3, 2)])
def test_the_sparsemax_loss_of_any_batch(batch):
    """Optax maps over one batch axis, no more and no fewer."""
    x = jnp.broadcast_to(jnp.asarray([0.5, 0.3, -1.0]), (*batch, 3))
    labels = jnp.ones(batch, jnp.int32)
    with pytest.raises((TypeError, ValueError)):
        theirs.multiclass_sparsemax_loss(x, labels)
    of_one = theirs.multiclass_sparsemax_loss(jnp.asarray([[0.5, 0.3, -1.0]]), jnp.asarray([1]))[0]
    assert of_one > 0.1
    np.testing.assert_allclose(losses.multiclass_sparsemax_loss(x, labels), jnp.full(batch, of_one), rtol=1e-6)
