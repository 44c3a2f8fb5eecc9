# SPDX-License-Identifier: Apache-2.0
"""Regression losses and cosines."""

import numpy as np

from support.losses.case import Masked, case, normal

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
