# SPDX-License-Identifier: Apache-2.0
"""Values and gradients at the edges of float32 and bfloat16: what they are in exact arithmetic, and never NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import losses

INF = np.inf
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])


def value_and_gradient(loss, x, *rest, dtype=jnp.float32, **kwargs):
    """Σ loss and its gradient with respect to the first argument, as float64."""
    rest = [jnp.asarray(y, dtype if np.issubdtype(np.asarray(y).dtype, np.floating) else None) for y in rest]
    value, gradient = jax.jit(jax.value_and_grad(lambda z: jnp.sum(loss(z, *rest, **kwargs))))(jnp.asarray(x, dtype))
    assert value.dtype == jnp.float32 and gradient.dtype == dtype
    return np.float64(value), np.asarray(gradient, np.float64)


@DTYPES
@pytest.mark.parametrize(
    ("loss", "x", "rest", "value", "gradient"),
    [
        (losses.softmax_cross_entropy, [3e38, -3e38, 0.0], [[1.0, 0.0, 0.0]], 0, [0, 0, 0]),
        (losses.softmax_cross_entropy, [1e4, 0.0], [[0.0, 1.0]], 1e4, [1, -1]),
        (losses.softmax_cross_entropy, [0.0, -INF, 0.0], [[0.5, 0.0, 0.5]], np.log(2), [0, 0, 0]),
        (losses.softmax_cross_entropy, [0.0, -INF], [[0.0, 1.0]], INF, [1, -1]),
        (losses.safe_softmax_cross_entropy, [0.0, -INF, 0.0], [[1.0, 0.0, 0.0]], np.log(2), [-0.5, 0, 0.5]),
        (losses.softmax_cross_entropy_with_integer_labels, [3e38, -3e38], [0], 0, [0, 0]),
        (losses.softmax_cross_entropy_with_integer_labels, [0.0, -INF, 0.0], [0], np.log(2), [-0.5, 0, 0.5]),
        (losses.softmax_cross_entropy_with_integer_labels, [-INF, 0.0], [0], INF, [-1, 1]),
        (losses.poly_loss_cross_entropy, [0.0, -INF, 0.0], [[1.0, 0.0, 0.0]], np.log(2) + 1, [-1, 0, 1]),
        (losses.z_loss, [1e4, 0.0], [], 1e8, [2e4, 0]),
        (losses.z_loss, [0.0, -INF], [], 0, [0, 0]),
        (losses.sigmoid_binary_cross_entropy, [INF, -INF, 3e38, -3e38], [[1.0, 0.0, 1.0, 0.0]], 0, [0, 0, 0, 0]),
        (losses.sigmoid_binary_cross_entropy, [1e4, -1e4], [[0.0, 1.0]], 2e4, [1, -1]),
        (losses.sigmoid_focal_loss, [INF, -INF, 200.0, -200.0], [[1.0, 0.0, 1.0, 0.0]], 0, [0, 0, 0, 0]),
        (losses.sigmoid_focal_loss, [1e4, -1e4], [[0.0, 1.0]], 2e4, [1, -1]),
        (losses.sparsemax_loss, [1e30, -1e30, 2.0], [[1.0, 0.0, 0.0]], 2, [0, 0, 1]),
        (losses.multiclass_sparsemax_loss, [3e38, -3e38, -INF], [0], 0, [0, 0, 0]),
        (losses.multiclass_hinge_loss, [1e30, -INF, 0.0], [0], 0, [0, 0, 0]),
        (losses.multiclass_perceptron_loss, [0.0, -INF], [0], 0, [0, 0]),
        (losses.huber_loss, [1e30, -1e30], [], 2e30, [1, -1]),
        (losses.log_cosh, [1e30, -1e30, 0.0], [], 2e30, [1, -1, 0]),
        (losses.kl_divergence, [0.0, -INF], [[1.0, 0.0]], 0, [-1, 0]),
        (losses.kl_divergence, [0.0, -INF], [[0.5, 0.5]], INF, [-0.5, -0.5]),
        (losses.generalized_kl_divergence, [0.0, -INF], [[1.0, 0.0]], 0, [0, 0]),
        (losses.kl_divergence_with_log_targets, [0.0, -INF], [[0.0, -INF]], 0, [-1, 0]),
        (losses.cosine_similarity, [0.0, 0.0], [[1.0, 0.0]], 0, [0, 0]),
        (losses.cosine_distance, [1e30, 0.0], [[1e-30, 0.0]], 0, [0, 0]),
        (losses.dice_loss, [[1e4, -1e4]], [[[1.0, 0.0]]], 0, [[0, 0]]),
        (losses.hinge_loss, [1e30, -1e30], [[1.0, 1.0]], 1e30, [0, -1]),
        (losses.dpo_loss, [0.0, 1e6], [[1e6, 0.0]], 1e5, [-0.1, 0]),
        (losses.poisson_nll_loss, [-INF, -1e4, 0.0], [[0.0, 0.0, 2.0]], 1, [0, 0, -1]),
        (losses.poisson_nll_loss, [-INF], [[2.0]], INF, [-2]),
        (losses.poisson_nll_loss, [1e4], [[2.0]], INF, [INF]),
        (losses.poisson_nll_loss, [3e38, INF], [[2e3, 2.0]], INF, [INF, INF]),
        (losses.gaussian_nll_loss, [1e30, 0.0], [[0.0, 0.0], [1e36, 1.0]], 5e23 + 18 * np.log(10), [1e-6, 0]),
        (losses.gaussian_nll_loss, [1.0, 0.0], [[0.0, 0.0], [INF, 1.0]], INF, [0, 0]),
    ],
)
def test_edges(loss, x, rest, value, gradient, dtype):
    found, of_x = value_and_gradient(loss, x, *(np.asarray(y) for y in rest), dtype=dtype)
    tolerance = 1e-6 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(found, value, rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(of_x, gradient, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "x", "rest", "kwargs"),
    [
        (losses.sigmoid_focal_loss, [120.0, -120.0, 95.0], [[1.0, 0.0, 1.0]], {"gamma": 0.5}),
        (losses.sigmoid_focal_loss, [120.0, -120.0, 95.0], [[1.0, 0.0, 1.0]], {"gamma": 0.0}),
        (losses.triplet_margin_loss, [0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]], {"eps": 0.0}),
        (losses.triplet_margin_loss, [1e30, 0.0], [[0.0, 0.0], [0.0, 2e30]], {}),
        (losses.ntxent, np.zeros((3, 2)), [np.array([0, 0, 1])], {}),
        (losses.ntxent, np.ones((3, 2)), [np.array([0, 1, 2])], {}),
        (losses.ntxent, np.ones((3, 2)), [np.array([0, 0, 0])], {"temperature": 1e-3}),
        (losses.info_nce_loss, np.zeros((3, 2)), [np.ones((3, 2))], {"temperature": 1e-4}),
        (losses.info_nce_loss, np.eye(3), [-np.eye(3)], {"temperature": 1e-6}),
        (losses.siglip_loss, np.eye(3), [-np.eye(3), 1e5], {}),
        (losses.focal_tversky_loss, [[[1e3, 0.0]]], [[[[1.0, 0.0]]]], {"smooth": 0.0}),
        (losses.tversky_loss, np.zeros((1, 2, 2)), [np.zeros((1, 2, 2))], {"smooth": 0.0, "apply_softmax": False}),
        (losses.multiclass_generalized_dice_loss, np.ones((1, 2, 3)), [np.zeros((1, 2, 3))], {"smooth": 0.0}),
        (losses.binary_dice_loss, np.zeros((1, 2)), [np.zeros((1, 2))], {"smooth": 0.0, "apply_sigmoid": False}),
        (losses.lovasz_hinge, [[1e30, -1e30]], [[[1.0, 0.0]]], {}),
        (losses.lovasz_softmax, [[[1e4, -1e4], [0.0, 0.0]]], [np.array([[0, 0]])], {}),
        (losses.wasserstein_1d, [1.0, 1.0, 1.0], [[1.0, 1.0]], {}),
        (losses.wasserstein_1d, [1e30, -1e30], [[0.0, 0.0, 0.0]], {}),
        (losses.histogram_wasserstein_1d, [0.0, 0.0], [[1.0, 0.0]], {}),
        (losses.histogram_wasserstein_1d, [0.5, 0.5], [[0.5, 0.5]], {}),
        (losses.ranking_softmax_loss, [0.0, -INF, 3e38], [[0.0, 0.0, 1.0]], {}),
        (losses.softmax_cross_entropy, [3e38, 0.0], [[1.0, 0.0]], {"z_loss_weight": 0.0, "label_smoothing": 0.0}),
        (losses.poisson_nll_loss, [0.0, 0.0], [[0.0, 3.0]], {"log_input": False}),
        (losses.poisson_nll_loss, [0.0], [[0.0]], {"log_input": False, "eps": 0.0}),
        (losses.poisson_nll_loss, [0.0, 0.0], [[0.0, 1.0]], {"full": True}),
        (losses.gaussian_nll_loss, [0.0, 1.0], [[0.0, 0.0], [0.0, 0.0]], {}),
        (losses.reduce_loss, [1.0, 2.0], [[0.0, 0.0]], {}),
    ],
)
def test_finite(loss, x, rest, kwargs):
    value, gradient = value_and_gradient(loss, x, *rest, **kwargs)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_cosines_do_not_depend_on_the_lengths(scale):
    """Whose squares are 0 or infinite in float32."""
    x, y = np.float32([1.0, 2.0, -1.0]), np.float32([0.5, 0.0, 2.0])
    expected, of_one = value_and_gradient(losses.cosine_similarity, x, y)
    found, gradient = value_and_gradient(losses.cosine_similarity, np.float32(scale) * x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient * scale, of_one, rtol=1e-5, atol=1e-6)


def test_small_errors_are_not_lost_against_log_two():
    e = np.float32([1e-6, 1e-4, 1e-2, 0.5])
    found = losses.log_cosh(jnp.asarray(e))
    e = e.astype(np.float64)
    np.testing.assert_allclose(found, np.log1p(2 * np.sinh(e / 2) ** 2), rtol=3e-7)


def test_labels_of_zero_have_a_gradient():
    """0 log(0) is hidden, not 0 log(p): a teacher's probabilities are trained too."""
    x = jnp.asarray([0.0, 1.0, -jnp.inf])
    gradient = jax.grad(lambda y: losses.softmax_cross_entropy(x, y))(jnp.asarray([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(gradient, [np.log1p(np.e), np.log1p(np.e) - 1, 0], rtol=1e-6)


def test_targets_of_zero_have_no_gradient_in_a_divergence():
    gradient = jax.grad(lambda t: losses.kl_divergence(jnp.asarray([0.0, -1.0]), t))(jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(gradient, [1.0, 0.0])


def test_nan_is_not_hidden():
    for loss in (losses.softmax_cross_entropy, losses.sigmoid_binary_cross_entropy, losses.kl_divergence):
        assert np.all(np.isnan(jnp.sum(loss(jnp.asarray([jnp.nan, 0.0]), jnp.asarray([0.0, 1.0])))))


def test_ctc_with_too_few_frames_has_a_finite_gradient():
    arguments = jnp.zeros((1, 1)), jnp.asarray([[1, 1]]), jnp.zeros((1, 2))
    value, gradient = jax.value_and_grad(lambda x: losses.ctc_loss(x, *arguments).sum())(jnp.ones((1, 1, 3)))
    assert 0.9e5 < value < 3e5 and np.all(np.isfinite(gradient))
    extreme = jnp.asarray([[[1e4, -jnp.inf, 0.0]]])
    value, gradient = jax.value_and_grad(lambda x: losses.ctc_loss(x, *arguments).sum())(extreme)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_divergence_from_itself_is_not_negative(dtype):
    x = 3 * jax.random.normal(jax.random.key(0), (100, 50))
    log_p, p = jax.nn.log_softmax(x).astype(dtype), jax.nn.softmax(x).astype(dtype)
    for found in (
        losses.kl_divergence(log_p, p),
        losses.kl_divergence_with_log_targets(jax.nn.log_softmax(x + 7).astype(dtype), log_p),
        losses.generalized_kl_divergence(log_p, p),
    ):
        assert 0 <= jnp.min(found) and jnp.max(found) < 0.05


def test_a_divergence_that_is_negative_stays_so():
    """Of numbers that do not sum to 1, and of some of the classes."""
    found = losses.kl_divergence(jnp.log(jnp.asarray([0.5, 0.5])), jnp.asarray([0.1, 0.1]))
    np.testing.assert_allclose(found, 0.2 * np.log(0.2), rtol=1e-6)
    half = losses.kl_divergence(
        jnp.log(jnp.asarray([0.5, 0.5])), jnp.asarray([0.1, 0.9]), where=jnp.asarray([True, False])
    )
    np.testing.assert_allclose(half, 0.1 * np.log(0.2), rtol=1e-6)


def test_confident_alignments_have_a_loss_of_at_least_zero():
    """The frames name the labels with probabilities of which float32 rounds the sum above 1."""
    x = jax.random.uniform(jax.random.key(0), (200, 12, 5), maxval=12.0)
    label = jax.random.randint(jax.random.key(1), (200, 4), 1, 5)
    frames = jnp.where(jnp.arange(12) % 3 < 2, label[:, jnp.arange(12) // 3], 0)
    logits = jnp.where(jax.nn.one_hot(frames, 5) > 0, x + 4.0, -12.0)
    padding = jnp.zeros((200, 12)), jnp.zeros((200, 4))
    value, gradient = jax.value_and_grad(lambda z: jnp.min(losses.ctc_loss(z, padding[0], label, padding[1])))(logits)
    assert 0 <= value < 1e-4 and jnp.all(jnp.isfinite(gradient))


def test_vectors_of_one_direction_have_a_cosine_of_at_most_one():
    x = jax.random.normal(jax.random.key(0), (500, 7))
    assert jnp.max(losses.cosine_similarity(x, 3 * x)) <= 1 and jnp.min(losses.cosine_similarity(x, -3 * x)) >= -1
    assert jnp.min(losses.cosine_distance(x, 3 * x)) >= 0


def test_the_best_scores_have_a_sparsemax_loss_of_at_least_zero():
    x = 0.3 * jax.random.normal(jax.random.key(0), (300, 50))
    assert jnp.min(losses.multiclass_sparsemax_loss(10 * x, jnp.argmax(x, -1))) >= 0


@pytest.mark.parametrize(
    "loss", [losses.dice_loss, losses.tversky_loss, losses.focal_tversky_loss, losses.multiclass_generalized_dice_loss]
)
def test_regions_of_one_class_are_binary(loss):
    x, y = jnp.linspace(-10.0, 3.0, 32).reshape(2, 4, 4, 1), jnp.ones((2, 4, 4, 1))
    p = 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    false_negatives = 0.7 if "tversky" in loss.__name__ else 0.5
    true, wrong = np.sum(p, axis=(1, 2, 3)), false_negatives * np.sum(1 - p, axis=(1, 2, 3))
    expected = wrong / (true + wrong + 1)
    if loss is losses.focal_tversky_loss:
        expected = expected**0.75
    if loss is losses.multiclass_generalized_dice_loss:
        expected = np.mean(expected)
    np.testing.assert_allclose(loss(x, y), expected, rtol=1e-5)


def test_dice_of_one_class_is_binary_dice():
    x, y = jnp.full((2, 4, 4, 1), -10.0), jnp.ones((2, 4, 4, 1))
    np.testing.assert_allclose(losses.dice_loss(x, y), 0.8888, rtol=1e-4)
    np.testing.assert_allclose(losses.dice_loss(x, y), losses.binary_dice_loss(x, y), rtol=1e-6)


def test_a_variance_below_the_least_can_grow():
    """The derivative with respect to it is that at the least variance; a negative variance has no logarithm."""
    of_variance = jax.grad(lambda v: losses.gaussian_nll_loss(1.0, 0.0, v, eps=0.1))
    np.testing.assert_allclose(of_variance(1e-3), 0.5 * (1 / 0.1 - 1 / 0.1**2), rtol=1e-5)
    assert np.isnan(losses.gaussian_nll_loss(1.0, 0.0, -1.0))
