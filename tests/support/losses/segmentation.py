# SPDX-License-Identifier: Apache-2.0
"""Losses of segmentations."""

import numpy as np

from support.losses.case import RNG, Masked, case, fractions, normal, one_hot, sigmoid, softmax

PIXELS = {"predictions": normal(2, 4, 3, 3), "targets": one_hot(RNG.integers(0, 3, (2, 4, 3)), 3)}
OF_PIXELS = Masked(1, (1, 4, 1, 1), ("predictions", "targets"), count=2)


def overlap(p, y, axes=(1, 2), alpha=0.5, beta=0.5, smooth=1.0):
    tp, fp, fn = (z.sum(axes) for z in (p * y, p * (1 - y), (1 - p) * y))
    return 1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)


case("dice_loss", PIXELS, lambda x, y: overlap(softmax(x), y).mean(-1), OF_PIXELS)
case(
    "dice_loss",
    PIXELS,
    lambda x, y: (overlap(softmax(x), y, (0, 1), 0.2, 0.9, 0.3) * [1.0, 2.0, 3.0])[..., 1:],
    class_weights=np.array([1.0, 2.0, 3.0]),
    axis=(0, 1),
    alpha=0.2,
    beta=0.9,
    smooth=0.3,
    reduction="none",
    ignore_background=True,
)
case(
    "dice_loss",
    {"predictions": fractions(2, 4, 3, 3), "targets": PIXELS["targets"]},
    lambda p, y: overlap(p, y, smooth=0.0).sum(-1),
    OF_PIXELS,
    apply_softmax=False,
    smooth=0.0,
    reduction="sum",
)
case("tversky_loss", PIXELS, lambda x, y: overlap(softmax(x), y, alpha=0.3, beta=0.7).mean(-1), OF_PIXELS)
case(
    "focal_tversky_loss",
    PIXELS,
    lambda x, y: (overlap(softmax(x), y, alpha=0.3, beta=0.7) ** 0.75).mean(-1),
    OF_PIXELS,
)


def generalized_dice(first):
    def formula(x, y):
        weights = 1 / y.sum((0, 1, 2)) ** 2
        weights = weights / weights.mean()
        return (weights * overlap(softmax(x), y))[:, first:].mean()

    return formula


case("multiclass_generalized_dice_loss", PIXELS, generalized_dice(0), OF_PIXELS)
case("multiclass_generalized_dice_loss", PIXELS, generalized_dice(1), OF_PIXELS, ignore_background=True)

SHAPES = {"predictions": normal(2, 4, 3), "targets": RNG.integers(0, 2, (2, 4, 3)).astype(float)}
OF_SHAPES = Masked(1, (2, 4, 1), ("predictions", "targets"), count=2)
case("binary_dice_loss", SHAPES, lambda x, y: overlap(sigmoid(x), y), OF_SHAPES)
case(
    "binary_dice_loss",
    {"predictions": fractions(2, 4, 3), "targets": SHAPES["targets"]},
    lambda p, y: overlap(p, y, smooth=0.2),
    OF_SHAPES,
    apply_sigmoid=False,
    smooth=0.2,
)


def lovasz(errors, wrong_of, y):
    """The Lovász extension of the Jaccard loss by its definition: sets of the k largest errors."""
    order = np.argsort(-errors, kind="stable")
    total, before = 0.0, 0.0
    for k in range(1, len(errors) + 1):
        mistakes = np.zeros(len(errors), bool)
        mistakes[order[:k]] = True
        predicted = y ^ mistakes
        now = 1 - (predicted & y).sum() / (predicted | y).sum() if (predicted | y).any() else 0.0
        total += wrong_of(errors[order[k - 1]]) * (now - before)
        before = now
    return total


def hinge_of_sets(x, y):
    rows = zip(x.reshape(len(x), -1), y.reshape(len(y), -1) > 0, strict=True)
    return np.array([lovasz(1 - a * (2.0 * b - 1), lambda e: max(e, 0), b) for a, b in rows])


def softmax_of_sets(present, axes_first=False):
    def formula(x, labels, p=None):
        p = softmax(x) if p is None else p
        images = []
        for q, label in zip(p, labels, strict=True):
            q, label = q.reshape(-1, q.shape[-1]), label.ravel()
            classes = [c for c in range(q.shape[1]) if not present or (label == c).any()]
            images.append(np.mean([lovasz(np.abs((label == c) - q[:, c]), lambda e: e, label == c) for c in classes]))
        return np.array(images)

    return formula


case(
    "lovasz_hinge",
    {"logits": normal(2, 4, 3), "labels": RNG.integers(0, 2, (2, 4, 3))},
    hinge_of_sets,
    Masked(1, (1, 4, 1), ("logits", "labels"), count=2),
)
case("lovasz_hinge", {"logits": normal(2, 6), "labels": np.zeros((2, 6), int)}, hinge_of_sets)
LABELED = {"predictions": normal(2, 4, 3, 4), "labels": RNG.integers(0, 3, (2, 4, 3))}
case("lovasz_softmax", LABELED, softmax_of_sets(True), Masked(1, (1, 4, 1), ("predictions", "labels"), count=2))
case("lovasz_softmax", LABELED, softmax_of_sets(False), classes="all")
case(
    "lovasz_softmax",
    {"predictions": fractions(2, 4, 3, 4), "labels": LABELED["labels"]},
    lambda p, y: softmax_of_sets(True)(None, y.reshape(1, -1), p.reshape(1, -1, 4))[0],
    apply_softmax=False,
    axis=(0, 1, 2),
)
