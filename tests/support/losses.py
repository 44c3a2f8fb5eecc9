# SPDX-License-Identifier: Apache-2.0
"""Every loss with arguments, its formula in NumPy float64, and what may be masked.

The formulas are written for ordinary numbers: no masks, no care at extremes.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import gradtx.losses

RNG = np.random.default_rng(0)


class Masked(NamedTuple):
    """A mask of the last entries along an axis: deleting them must give the same."""

    axis: int  # the axis along which entries are masked
    shape: tuple[int, ...]  # that of `where`: 1 where it is repeated
    arrays: tuple[str, ...]  # the arguments that have the axis
    out: int | None = None  # where the axis is in the result: there, masked entries are 0
    count: int = 1
    name: str = "where"


class Case(NamedTuple):
    name: str
    arrays: dict[str, np.ndarray]
    formula: Callable[..., Any]
    kwargs: dict[str, Any]
    masks: tuple[Masked, ...]

    def __str__(self) -> str:
        return ", ".join([self.name, *(f"{k}={v}" for k, v in self.kwargs.items() if not isinstance(v, np.ndarray))])

    def call(self, *arrays: Any, **extra: Any) -> Any:
        found = getattr(gradtx.losses, self.name)(**dict(zip(self.arrays, arrays, strict=True)), **self.kwargs, **extra)
        return found[0] if self.name == "ctc_loss_with_forward_probs" else found

    def expected(self, *arrays: Any) -> np.ndarray:
        return np.asarray(self.formula(*arrays), np.float64)

    @property
    def differentiable(self) -> list[int]:
        return [i for i, x in enumerate(self.arrays.values()) if np.issubdtype(x.dtype, np.floating)]


CASES: list[Case] = []


def case(name: str, arrays: dict, formula: Callable, *masks: Masked, **kwargs: Any) -> None:
    CASES.append(Case(name, {n: np.asarray(x) for n, x in arrays.items()}, formula, kwargs, masks))


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def fractions(*shape: int) -> np.ndarray:
    return RNG.uniform(0.05, 0.95, size=shape)


def softmax(x, axis=-1):
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_hot(labels, n):
    return np.eye(n)[labels]


def chosen(x, labels):
    return np.take_along_axis(x, labels[..., None], -1)[..., 0]


# Regression ---------------------------------------------------------------------------------------------------------

ERRORS = {"predictions": 2 * normal(3, 5), "targets": normal(3, 5)}
ENTRIES = Masked(1, (1, 5), ("predictions", "targets"), out=1)
case("squared_error", ERRORS, lambda x, y: (x - y) ** 2, ENTRIES)
case("squared_error", {"predictions": normal(4)}, lambda x: x**2)
case("l2_loss", ERRORS, lambda x, y: (x - y) ** 2 / 2, ENTRIES)
case("log_cosh", ERRORS, lambda x, y: np.log(np.cosh(x - y)), ENTRIES)


def huber(delta):
    return lambda x, y: np.where(np.abs(x - y) <= delta, (x - y) ** 2 / 2, delta * (np.abs(x - y) - delta / 2))


case("huber_loss", ERRORS, huber(1.0), ENTRIES)
case("huber_loss", ERRORS, huber(0.3), ENTRIES, delta=0.3)


def cosine(epsilon):
    def length(x):
        return np.sqrt(np.maximum((x * x).sum(-1), epsilon))

    return lambda x, y: (x * y).sum(-1) / length(x) / length(y)


VECTORS = Masked(1, (1, 5), ("predictions", "targets"))
case("cosine_similarity", ERRORS, cosine(0.0), VECTORS)
case("cosine_similarity", ERRORS, cosine(9.0), VECTORS, epsilon=9.0)
case("cosine_similarity", ERRORS, lambda x, y: cosine(0.0)(x.T, y.T), Masked(0, (3, 1), VECTORS.arrays), axis=0)
case("cosine_distance", ERRORS, lambda x, y: 1 - cosine(0.0)(x, y), VECTORS)

# Classification -----------------------------------------------------------------------------------------------------

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

# Divergences --------------------------------------------------------------------------------------------------------

DENSITIES = {"log_predictions": normal(3, 5), "targets": fractions(3, 5)}
LOG_DENSITIES = {"log_predictions": normal(3, 5), "log_targets": normal(3, 5)}


def kl(q, t):
    return (t * (np.log(t) - q)).sum(-1)


def of_densities(name):
    return Masked(1, (1, 5), ("log_predictions", name), count=2)


case("kl_divergence", DENSITIES, kl, of_densities("targets"))
case("kl_divergence", DENSITIES, lambda q, t: kl(q.T, t.T), axis=0)
case("kl_divergence_with_log_targets", LOG_DENSITIES, lambda q, t: kl(q, np.exp(t)), of_densities("log_targets"))
for kind in ("convex_kl_divergence", "generalized_kl_divergence"):
    case(kind, DENSITIES, lambda q, t: kl(q, t) + (np.exp(q) - t).sum(-1), of_densities("targets"))

SAMPLES = {"predictions": normal(2, 5), "targets": normal(2, 3)}


def area(x, y, u=None, v=None):
    """By the distribution functions at the middle of each interval."""
    rows = []
    for i in range(len(x)):
        a, b = (np.ones(z.shape[1]) if w is None else w[i] for z, w in ((x, u), (y, v)))
        points = np.sort(np.concatenate([x[i], y[i]]))
        middle = (points[1:] + points[:-1]) / 2
        f = (a * (x[i] < middle[:, None])).sum(-1) / a.sum()
        g = (b * (y[i] < middle[:, None])).sum(-1) / b.sum()
        rows.append((np.abs(f - g) * np.diff(points)).sum())
    return np.array(rows)


case(
    "wasserstein_1d",
    SAMPLES,
    area,
    Masked(1, (1, 5), ("predictions",), count=2),
    Masked(1, (1, 3), ("targets",), name="target_where"),
)
case(
    "wasserstein_1d",
    SAMPLES | {"prediction_weights": fractions(2, 5), "target_weights": fractions(2, 3)},
    area,
    Masked(1, (1, 5), ("predictions", "prediction_weights"), count=2),
    Masked(1, (1, 3), ("targets", "target_weights"), name="target_where"),
)
case("wasserstein_1d", {n: x.T for n, x in SAMPLES.items()}, lambda x, y: area(x.T, y.T), axis=0)


def histogram_distance(p, t, places=None):
    places = np.arange(p.shape[1]) if places is None else places
    f, g = (np.cumsum(z, 1) / z.sum(1, keepdims=True) for z in (p, t))
    return (np.abs(f - g)[:, :-1] * np.diff(places)).sum(1)


HISTOGRAMS = {"predictions": fractions(2, 5), "targets": fractions(2, 5)}
PLACES = np.array([0.0, 0.5, 2.0, 2.5, 4.0])
case("histogram_wasserstein_1d", HISTOGRAMS, histogram_distance, Masked(1, (1, 5), ("predictions", "targets"), count=2))
case(
    "histogram_wasserstein_1d",
    HISTOGRAMS | {"positions": PLACES},
    histogram_distance,
)

# Contrastive and of preferences -------------------------------------------------------------------------------------

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

# Segmentation -------------------------------------------------------------------------------------------------------

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

# Others -------------------------------------------------------------------------------------------------------------

FRAMES = {
    "logits": normal(3, 5, 4),
    "logit_paddings": np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]]),
    "labels": np.array([[1, 2], [3, 3], [2, 0]]),
    "label_paddings": np.array([[0, 0], [0, 0], [0, 1]]),
}


def readings(blank):
    """By adding up the probabilities of all sequences of classes that read as the labels."""

    def formula(x, frame_paddings, labels, label_paddings):
        losses = []
        for i in range(len(x)):
            p = softmax(x[i, : int((frame_paddings[i] == 0).sum())])
            wanted = [int(y) for y, padding in zip(labels[i], label_paddings[i], strict=True) if not padding]
            total = 0.0
            for path in itertools.product(range(p.shape[1]), repeat=len(p)):
                merged = [c for t, c in enumerate(path) if t == 0 or c != path[t - 1]]
                if [c for c in merged if c != blank] == wanted:
                    total += np.prod([p[t, c] for t, c in enumerate(path)])
            losses.append(-np.log(total))
        return np.array(losses)

    return formula


case("ctc_loss", FRAMES, readings(0))
case("ctc_loss", FRAMES | {"labels": np.array([[1, 2], [0, 0], [2, 3]])}, readings(3), blank_id=3)
case("ctc_loss_with_forward_probs", FRAMES, readings(0))

LOSSES = {"losses": normal(3, 4)}
case("reduce_loss", LOSSES, np.mean, Masked(1, (1, 4), ("losses",)))
case("reduce_loss", LOSSES, lambda x: x.sum(0), Masked(0, (3, 4), ("losses",)), reduction="sum", axis=0)
case(
    "reduce_loss",
    LOSSES | {"weights": fractions(3, 4)},
    lambda x, w: (x * w).sum(1) / w.sum(1),
    Masked(1, (1, 4), ("losses", "weights")),
    axis=1,
)
case(
    "reduce_loss",
    LOSSES | {"weights": fractions(3, 4)},
    lambda x, w: x * w,
    Masked(1, (1, 4), ("losses", "weights"), out=1),
    reduction="none",
)
