# SPDX-License-Identifier: Apache-2.0
"""Contrastive losses, preferences and rankings."""

import itertools

import numpy as np

from support.losses.case import RNG, Masked, case, fractions, normal, sigmoid
from support.losses.classification import EXAMPLES, OF_CLASSES, entropy

TRIPLETS = {n: normal(4, 5) for n in ("anchors", "positives", "negatives")}


def triplet(k, margin, eps):
    def distance(x, y):
        return ((np.abs(x - y) ** k).sum(-1) + eps) ** (1 / k)

    return lambda a, p, n: np.maximum(0, distance(a, p) - distance(a, n) + margin)


OF_TRIPLETS = Masked(1, (1, 5), tuple(TRIPLETS), count=2)
case("triplet_margin_loss", TRIPLETS, triplet(2, 1.0, 1e-6), OF_TRIPLETS)
case("triplet_margin_loss", TRIPLETS, triplet(3, 2.0, 0.5), OF_TRIPLETS, norm_degree=3, margin=2.0, eps=0.5)
case("triplet_margin_loss", TRIPLETS, triplet(1, 2.0, 0.0), OF_TRIPLETS, norm_degree=1, margin=2.0, eps=0.0)


def units(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def pairs_of_one_label(temperature):
    def formula(x, labels):
        s = units(x) @ units(x).T / temperature
        terms = []
        for i, j in itertools.permutations(range(len(x)), 2):
            if labels[i] == labels[j]:
                others = sum(np.exp(s[i, k]) for k in range(len(x)) if labels[k] != labels[i])
                terms.append(-np.log(np.exp(s[i, j]) / (np.exp(s[i, j]) + others)))
        return np.mean(terms)

    return formula


def info_nce(x, y, n=None, temperature=0.07, normalize=True, symmetric=False):
    x, y, n = (units(z) if normalize and z is not None else z for z in (x, y, n))
    s = x @ y.T / temperature
    own = np.exp(np.diag(s))
    if n is not None:
        return -np.log(own / (own + np.exp(x @ n.T / temperature).sum(1)))
    losses = -np.log(own / np.exp(s).sum(1))
    return (losses - np.log(own / np.exp(s).sum(0))) / 2 if symmetric else losses


def siglip(x, y, scale=10.0, bias=-10.0):
    z = scale * units(x) @ units(y).T + bias
    return -np.log(sigmoid((2 * np.eye(len(x)) - 1) * z)).sum(1)


case(
    "ntxent",
    {"embeddings": normal(6, 3), "labels": np.array([0, 1, 0, 0, 1, 1])},
    pairs_of_one_label(0.07),
    Masked(0, (6,), ("embeddings", "labels"), count=2),
)
case(
    "ntxent",
    {"embeddings": normal(4, 3), "labels": np.array([0, 1, 0, 2])},
    pairs_of_one_label(1.0),
    temperature=1.0,
)
ROWS = {"queries": normal(4, 3), "keys": normal(4, 3)}
OF_ROWS = Masked(0, (4,), ("queries", "keys"), out=0)
case("info_nce_loss", ROWS, info_nce, OF_ROWS)
case("info_nce_loss", ROWS, lambda x, y: info_nce(x, y, symmetric=True), OF_ROWS, symmetric=True)
case("info_nce_loss", ROWS | {"negatives": normal(5, 3)}, info_nce, OF_ROWS)
case(
    "info_nce_loss",
    ROWS,
    lambda x, y: info_nce(x, y, temperature=2.0, normalize=False),
    OF_ROWS,
    temperature=2.0,
    normalize=False,
)
IMAGES = {"images": normal(4, 3), "texts": normal(4, 3)}
case("siglip_loss", IMAGES, siglip, Masked(0, (4,), ("images", "texts"), out=0))
case("siglip_loss", IMAGES | {"logit_scale": 3.0, "logit_bias": -1.5}, siglip)

ANSWERS = {n: -10 + normal(5) for n in ("chosen", "rejected", "reference_chosen", "reference_rejected")}
OF_ANSWERS = Masked(0, (5,), tuple(ANSWERS), out=0)


def preference(f):
    return lambda a, b, c=0, d=0: f((a - b) - (c - d))


case("dpo_loss", ANSWERS, preference(lambda h: -np.log(sigmoid(0.1 * h))), OF_ANSWERS)
case(
    "dpo_loss",
    ANSWERS,
    preference(lambda h: -0.8 * np.log(sigmoid(0.5 * h)) - 0.2 * np.log(sigmoid(-0.5 * h))),
    OF_ANSWERS,
    beta=0.5,
    label_smoothing=0.2,
)
case("dpo_loss", ANSWERS, preference(lambda h: np.maximum(0, 1 - 0.4 * h)), OF_ANSWERS, beta=0.4, kind="hinge")
case("dpo_loss", ANSWERS, preference(lambda h: (h - 1 / 0.8) ** 2), OF_ANSWERS, beta=0.4, kind="ipo")
case(
    "dpo_loss",
    {n: ANSWERS[n] for n in ("chosen", "rejected")},
    preference(lambda h: -np.log(sigmoid(0.1 * h))),
    Masked(0, (5,), ("chosen", "rejected"), out=0),
)

LISTS = {"logits": normal(3, 5), "labels": RNG.integers(0, 4, (3, 5)).astype(float)}
case("ranking_softmax_loss", LISTS, lambda x, y: entropy(x, y).mean(), OF_CLASSES, EXAMPLES._replace(out=None))
case("ranking_softmax_loss", LISTS, entropy, OF_CLASSES, EXAMPLES, reduce_fn=None)
case(
    "ranking_softmax_loss",
    LISTS | {"weights": fractions(3, 5)},
    lambda x, y, w: entropy(x, y * w),
    Masked(1, (1, 5), ("logits", "labels", "weights")),
    reduce_fn=None,
)
