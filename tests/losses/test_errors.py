# SPDX-License-Identifier: Apache-2.0
"""Bad arguments are refused by name; nothing is broadcast in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import losses
from support.losses import CASES, Case

FREE = {"info_nce_loss": {"negatives"}, "wasserstein_1d": {"targets"}}
SHAPED = [
    (c, n)
    for c in {c.name: c for c in CASES if c.name != "reduce_loss"}.values()
    for n in list(c.arrays)[1:]
    if n not in FREE.get(c.name, set())
]
X, Y, LABELS = jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.zeros(2, int)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(("case", "name"), SHAPED, ids=[f"{c.name}-{n}" for c, n in SHAPED])
def test_shapes_that_would_broadcast(case: Case, name: str):
    for change in (lambda x: x[:1], lambda x: x[None]):
        arrays = {n: change(np.asarray(x)[()]) if n == name else x for n, x in case.arrays.items() if np.ndim(x)}
        arrays |= {n: x for n, x in case.arrays.items() if not np.ndim(x)}
        if np.ndim(case.arrays[name]) == 0:
            arrays[name] = np.ones(2)
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            getattr(losses, case.name)(**arrays, **case.kwargs)


WHERE = {c.name: c for c in CASES if c.masks}


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", WHERE)
def test_masks_that_do_not_fit(name: str):
    case = WHERE[name]
    shape = case.masks[0].shape
    arrays = list(map(jnp.asarray, case.arrays.values()))
    with pytest.raises(ValueError, match="where must be boolean"):
        case.call(*arrays, where=jnp.ones(shape))
    for wrong in ((*shape, 1), tuple(n + 7 for n in shape)):
        with pytest.raises(ValueError, match="where must have the shape"):
            case.call(*arrays, where=jnp.ones(wrong, bool))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.squared_error(jnp.ones(2, complex)), "squared_error: predictions must be real"),
        (lambda: losses.huber_loss(X, delta=0.0), "huber_loss: delta must be a number > 0, got 0.0"),
        (lambda: losses.huber_loss(X, delta=jnp.ones(3)), "huber_loss: delta must have the shape of a scalar"),
        (lambda: losses.poisson_nll_loss(X, Y, eps=-1.0), "poisson_nll_loss: eps must be a number >= 0, got -1.0"),
        (lambda: losses.gaussian_nll_loss(X, Y, Y, eps=0.0), "gaussian_nll_loss: eps must be a number > 0, got 0.0"),
        (lambda: losses.cosine_similarity(X, Y, epsilon=-1.0), "epsilon must be a number >= 0"),
        (lambda: losses.cosine_similarity(X, Y, axis=2), "axis must name axes of an array of rank 2, got 2"),
        (lambda: losses.kl_divergence(X, Y, axis=(0, -2)), "axis must not name an axis twice"),
        (lambda: losses.sigmoid_focal_loss(X, Y, alpha=-1.0), r"alpha must be in \[0, 1\]"),
        (lambda: losses.sigmoid_focal_loss(X, Y, gamma=-1.0), "gamma must be a number >= 0"),
        (lambda: losses.smooth_labels(X, 1.5), r"smooth_labels: alpha must be in \[0, 1\], got 1.5"),
        (lambda: losses.softmax_cross_entropy(X, Y, label_smoothing=2.0), r"label_smoothing must be in \[0, 1\]"),
        (lambda: losses.softmax_cross_entropy(X, Y, z_loss_weight=-1.0), "z_loss_weight must be a number >= 0"),
        (lambda: losses.softmax_cross_entropy_with_integer_labels(X, jnp.ones(2)), "labels must be integers"),
        (lambda: losses.softmax_cross_entropy_with_integer_labels(X, LABELS, axis=(0, 1)), "shape of logits without"),
        (
            lambda: losses.softmax_cross_entropy(X[:, :1], Y[:, :1]),
            "two classes.*sigmoid_binary_cross_entropy",
        ),
        (lambda: losses.softmax_cross_entropy_with_integer_labels(X[:, :1], LABELS), "at least two classes"),
        (lambda: losses.poly_loss_cross_entropy(X[:1], Y[:1], axis=0), "at least two classes"),
        (lambda: losses.smooth_labels(X[:, :1], 0.1), "at least two classes.*smooth_binary_labels"),
        (lambda: losses.multiclass_hinge_loss(X[:, :1], LABELS), "at least two classes"),
        (lambda: losses.multiclass_perceptron_loss(X[:, :1], LABELS), "at least two classes"),
        (lambda: losses.multiclass_sparsemax_loss(X[:, :1], LABELS), "at least two classes"),
        (lambda: losses.lovasz_softmax(X[:, :1], LABELS), "at least two classes.*lovasz_hinge"),
        (lambda: losses.ctc_loss(jnp.ones((2, 3, 1)), X, jnp.ones((2, 1), int), jnp.ones((2, 1))), "two classes"),
        (lambda: losses.multiclass_hinge_loss(X, jnp.ones(2)), "labels must be integers"),
        (lambda: losses.multiclass_hinge_loss(1.0, 0), "scores must have an axis of classes"),
        (lambda: losses.triplet_margin_loss(X, X, X, norm_degree=0.5), "norm_degree must be a number >= 1"),
        (lambda: losses.ntxent(X, LABELS, 0.0), "temperature must be a number > 0"),
        (lambda: losses.ntxent(X[0], LABELS), r"embeddings must have the shape \(batch, features\)"),
        (lambda: losses.info_nce_loss(X, Y, negatives=jnp.ones((4, 2))), "negatives must have rows like the queries"),
        (lambda: losses.info_nce_loss(X, Y, negatives=X, symmetric=True), "symmetric has no meaning with negatives"),
        (lambda: losses.dpo_loss(X, Y, kind="best"), "kind must be one of sigmoid, hinge, ipo, got 'best'"),
        (lambda: losses.dpo_loss(X, Y, kind="ipo", label_smoothing=0.1), 'label_smoothing is for kind="sigmoid"'),
        (lambda: losses.dpo_loss(X, Y, X), "reference_rejected is None, but the other reference is not"),
        (lambda: losses.dice_loss(X, Y, reduction="max"), "reduction must be one of mean, sum, none, got 'max'"),
        (lambda: losses.dice_loss(X, Y, axis=-1), "axis must not name the last axis"),
        (lambda: losses.dice_loss(X, Y, class_weights=jnp.ones(2)), "class_weights must have an entry for each class"),
        (lambda: losses.dice_loss(X[:, :1], X[:, :1], ignore_background=True), "ignore_background leaves no class"),
        (lambda: losses.tversky_loss(X, Y, alpha=-1.0), "tversky_loss: alpha must be a number >= 0"),
        (lambda: losses.focal_tversky_loss(X, Y, gamma=0.0), "focal_tversky_loss: gamma must be a number > 0"),
        (lambda: losses.wasserstein_1d(X, Y[:1]), "targets must have the predictions' shape"),
        (lambda: losses.wasserstein_1d(X, Y[0]), "targets must have the predictions' shape"),
        (lambda: losses.histogram_wasserstein_1d(X, Y, positions=X), "positions must have a number for each bin"),
        (lambda: losses.lovasz_softmax(X, LABELS, classes="some"), "classes must be one of present, all"),
        (lambda: losses.ctc_loss(X, X, X, X), r"logits must have the shape \(batch, frames, classes\)"),
        (
            lambda: losses.ctc_loss(jnp.ones((2, 3, 4)), X, jnp.ones((2, 1), int), jnp.ones((2, 1)), blank_id=4),
            r"blank_id must be a class, in \[0, 4\), got 4",
        ),
        (lambda: losses.reduce_loss(X, reduction="max"), "reduction must be one of none, sum, mean"),
        (lambda: losses.reduce_loss(X, X[:1]), "weights must have the shape of losses"),
        (lambda: losses.make_fenchel_young_loss(jnp.exp)(X, Y), "what max_fun returns must have"),
    ],
)
def test_what_is_refused(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_types_that_are_refused():
    with pytest.raises(TypeError, match="targets must be an array, got None"):
        losses.hinge_loss(X, None)
    with pytest.raises(TypeError, match="delta must be a number"):
        losses.huber_loss(X, delta="1")
    with pytest.raises(TypeError, match="max_fun must be a function"):
        losses.make_fenchel_young_loss(1.0)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize(
    "loss",
    [
        losses.softmax_cross_entropy_with_integer_labels,
        losses.multiclass_hinge_loss,
        losses.multiclass_perceptron_loss,
        losses.multiclass_sparsemax_loss,
        lambda x, y: losses.lovasz_softmax(x[:, None], y[:, None]),
        lambda x, y: losses.ctc_loss(x[:, None], jnp.zeros((2, 1)), y[:, None], jnp.zeros((2, 1))),
    ],
    ids=["cross-entropy", "hinge", "perceptron", "sparsemax", "lovasz", "ctc"],
)
def test_a_label_that_is_no_class_gives_nan(loss, label: int):
    """Which a traced program cannot refuse; other examples are not touched."""
    found = jax.jit(loss)(X, jnp.asarray([label, 1]))
    np.testing.assert_array_equal(np.isnan(found), [True, False])


def test_small_integers_are_no_narrower_than_the_classes():
    x = jnp.zeros((2, 300)).at[0, 200].set(5.0)
    labels = jnp.asarray([200, 3], jnp.uint8)
    found = losses.softmax_cross_entropy_with_integer_labels(x, labels)
    np.testing.assert_allclose(found, [np.log(299 + np.exp(5)) - 5, np.log(300)], rtol=1e-6)
