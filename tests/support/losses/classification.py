# SPDX-License-Identifier: Apache-2.0
"""Cross-entropies, margins and smoothed labels."""

import numpy as np

from support.losses.case import RNG, Masked, case, chosen, fractions, normal, one_hot, sigmoid, softmax

BINARY = {"logits": normal(3, 5), "labels": fractions(3, 5)}
OF_BINARY = Masked(1, (3, 5), ("logits", "labels"), out=1, count=2)


def binary_entropy(x, y):
    return -y * np.log(sigmoid(x)) - (1 - y) * np.log(sigmoid(-x))


def focal(alpha, gamma):
    def formula(x, y):
        p = sigmoid(x)
        weight = 1 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
        return weight * (1 - p * y - (1 - p) * (1 - y)) ** gamma * binary_entropy(x, y)

    return formula


case("sigmoid_binary_cross_entropy", BINARY, binary_entropy, OF_BINARY)
case(
    "sigmoid_binary_cross_entropy",
    BINARY,
    lambda x, y: binary_entropy(x, 0.9 * y + 0.05),
    OF_BINARY,
    label_smoothing=0.1,
)
case("sigmoid_focal_loss", BINARY, focal(None, 2.0), OF_BINARY)
case("sigmoid_focal_loss", BINARY, focal(0.25, 1.5), OF_BINARY, alpha=0.25, gamma=1.5)
case("sigmoid_focal_loss", BINARY, focal(None, 0.0), OF_BINARY, gamma=0.0)
case("smooth_binary_labels", {"labels": fractions(3, 4)}, lambda y: 0.8 * y + 0.1, alpha=0.2)

CLASSES = {"logits": normal(3, 5), "labels": fractions(3, 5)}
NUMBERED = {"logits": normal(3, 5), "labels": np.array([2, 0, 2])}
OF_CLASSES = Masked(1, (1, 5), ("logits", "labels"), count=2)
OF_NUMBERED = Masked(1, (1, 5), ("logits",), count=2)
EXAMPLES = Masked(0, (3, 1), ("logits", "labels"), out=0)


def entropy(x, y):
    return -(y * np.log(softmax(x))).sum(-1)


def log_z(x):
    return np.log(np.exp(x).sum(-1))


def smoothed(y, alpha):
    return (1 - alpha) * y + alpha / y.shape[-1]


case("softmax_cross_entropy", CLASSES, entropy, OF_CLASSES, EXAMPLES)
case("softmax_cross_entropy", CLASSES, lambda x, y: entropy(x.T, y.T), Masked(0, (3, 5), OF_CLASSES.arrays), axis=0)
case("softmax_cross_entropy", CLASSES, lambda x, y: entropy(x.ravel(), y.ravel()), axis=(0, 1))
case(
    "softmax_cross_entropy",
    CLASSES,
    lambda x, y: entropy(x, smoothed(y, 0.1)) + 0.01 * log_z(x) ** 2,
    OF_CLASSES,
    EXAMPLES,
    label_smoothing=0.1,
    z_loss_weight=0.01,
)
case("safe_softmax_cross_entropy", CLASSES, entropy)
case(
    "softmax_cross_entropy_with_integer_labels",
    NUMBERED,
    lambda x, y: entropy(x, one_hot(y, x.shape[-1])),
    OF_NUMBERED,
    EXAMPLES,
)
case(
    "softmax_cross_entropy_with_integer_labels",
    {"logits": normal(4, 2, 3), "labels": RNG.integers(0, 4, (2, 3))},
    lambda x, y: entropy(np.moveaxis(x, 0, -1), one_hot(y, 4)),
    Masked(-1, (1, 2, 3), ("logits", "labels"), out=1),
    axis=0,
)
case(
    "softmax_cross_entropy_with_integer_labels",
    NUMBERED,
    lambda x, y: entropy(x, smoothed(one_hot(y, x.shape[-1]), 0.2)) + 0.1 * log_z(x) ** 2,
    OF_NUMBERED,
    EXAMPLES,
    label_smoothing=0.2,
    z_loss_weight=0.1,
)
case(
    "poly_loss_cross_entropy",
    CLASSES,
    lambda x, y: entropy(x, y) + 2 * (y * (1 - softmax(x))).sum(-1),
    OF_CLASSES,
    EXAMPLES,
)
case(
    "poly_loss_cross_entropy",
    CLASSES,
    lambda x, y: entropy(x, y) - 0.5 * (y * (1 - softmax(x))).sum(-1),
    OF_CLASSES,
    epsilon=-0.5,
)
case("z_loss", {"logits": normal(3, 5)}, lambda x: log_z(x) ** 2, Masked(1, (1, 5), ("logits",)))
case("smooth_labels", {"labels": fractions(3, 5)}, lambda y: smoothed(y, 0.3), alpha=0.3)
case(
    "smooth_labels",
    {"labels": fractions(3, 5)},
    lambda y: smoothed(y, 0.3),
    Masked(1, (1, 5), ("labels",), out=1, count=2),
    alpha=0.3,
)
case(
    "smooth_labels",
    {"labels": fractions(3, 5), "prior": fractions(3, 5)},
    lambda y, q: 0.7 * y + 0.3 * q,
    Masked(1, (1, 5), ("labels", "prior"), out=1),
    alpha=0.3,
)

SIGNS = {"predictor_outputs": 2 * normal(3, 5), "targets": RNG.choice([-1.0, 1.0], (3, 5))}
OF_SIGNS = Masked(1, (1, 5), ("predictor_outputs", "targets"), out=1)
case("hinge_loss", SIGNS, lambda x, y: np.maximum(0, 1 - x * y), OF_SIGNS)
case("perceptron_loss", SIGNS, lambda x, y: np.maximum(0, -x * y), OF_SIGNS)

SCORES = {"scores": normal(4, 5), "labels": np.array([2, 0, 2, 1])}
OF_SCORES = Masked(1, (1, 5), ("scores",), count=2)
OF_EXAMPLES = Masked(0, (4, 1), ("scores", "labels"), out=0)


def sparsemax(x):
    """By trying every support."""
    found = np.zeros_like(x)
    for row, z in zip(found, x, strict=True):
        for size in range(1, len(z) + 1):
            support = np.argsort(-z)[:size]
            threshold = (z[support].sum() - 1) / size
            p = np.where(np.isin(np.arange(len(z)), support), z - threshold, 0)
            if (p >= 0).all() and (z[~np.isin(np.arange(len(z)), support)] <= threshold).all():
                row[:] = p
    return found


def sparsemax_conjugate(x, y):
    p = sparsemax(x)
    return (p * x).sum(-1) + (1 - (p * p).sum(-1)) / 2 - chosen(x, y)


def binary_sparsemax(x, y):
    """The loss of two classes with scores x and 0, sparsemax giving clip((x + 1) / 2, 0, 1)."""
    p = np.clip((x + 1) / 2, 0, 1)
    return p * x + (1 - p**2 - (1 - p) ** 2) / 2 - y * x


case(
    "multiclass_hinge_loss",
    SCORES,
    lambda x, y: (x + 1 - one_hot(y, x.shape[1])).max(-1) - chosen(x, y),
    OF_SCORES,
    OF_EXAMPLES,
)
case("multiclass_perceptron_loss", SCORES, lambda x, y: x.max(-1) - chosen(x, y), OF_SCORES, OF_EXAMPLES)
case("multiclass_sparsemax_loss", SCORES, sparsemax_conjugate, OF_SCORES, OF_EXAMPLES)
case("sparsemax_loss", {"logits": normal(3, 5), "labels": RNG.integers(0, 2, (3, 5))}, binary_sparsemax, OF_BINARY)
