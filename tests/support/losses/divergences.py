# SPDX-License-Identifier: Apache-2.0
"""Divergences and distances of distributions."""

import numpy as np

from support.losses.case import Masked, case, fractions, normal

DENSITIES = {"log_predictions": normal(3, 5), "targets": fractions(3, 5)}
LOG_DENSITIES = {"log_predictions": normal(3, 5), "log_targets": normal(3, 5)}


def kl(q, t):
    return (t * (np.log(t) - q)).sum(-1)


def of_densities(name):
    return Masked(1, (1, 5), ("log_predictions", name), count=2)


case("kl_divergence", DENSITIES, kl, of_densities("targets"))
case("kl_divergence", DENSITIES, lambda q, t: kl(q.T, t.T), axis=0)
case("kl_divergence_with_log_targets", LOG_DENSITIES, lambda q, t: kl(q, np.exp(t)), of_densities("log_targets"))
generalized = lambda q, t: kl(q, t) + (np.exp(q) - t).sum(-1)  # noqa: E731
case("generalized_kl_divergence", DENSITIES, generalized, of_densities("targets"))

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
